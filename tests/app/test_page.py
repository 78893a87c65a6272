"""The page in a real browser, which asks nobody but this machine."""

from __future__ import annotations

import gc
import json
import re
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from helpers.browsers import Page, asked_addresses, chromium, settled, until
from helpers.pipelines import pipeline
from helpers.unets import make_tiny_unet
from PIL import Image

from ddpm_pipeline.app import AppConfig
from ddpm_pipeline.app.drawing import Wish, draw
from ddpm_pipeline.app.models import Models
from ddpm_pipeline.app.serving import serve
from ddpm_pipeline.networks import Conditioning, ModelFacts, set_facts

TOLD = Conditioning(columns=("x",), low=(0.0,), high=(1.0,), channels=1, sides=(4, 4))

# Gradio's event loops and sockets are left to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of host '127.0.0.1' is in use; choose"):
            serve(AppConfig(models=("model",), port=port))


def test_a_host_that_is_not_this_machine_is_named() -> None:
    with pytest.raises(ValueError, match=r"host '192\.0\.2\.1' cannot be used: "):
        serve(AppConfig(models=("model",), host="192.0.2.1", port=free_port()))


@pytest.mark.usefixtures("address")  # which collects what the pages leave
@pytest.mark.parametrize(("most_images", "has_walks"), [(1, False), (2, True)])
def test_a_way_is_offered_where_two_images_are_allowed(most_images: int, has_walks: bool) -> None:
    gradio = pytest.importorskip("gradio", reason="Gradio is not installed")
    from ddpm_pipeline.app.page import make_page  # which needs Gradio

    page = make_page(AppConfig(models=("model",), most_images=most_images))
    parts = page.blocks.values()
    assert ("Walk" in [part.label for part in parts if isinstance(part, gradio.Tab)]) is has_walks
    asked = [part for part in parts if isinstance(part, gradio.Slider | gradio.Number)]
    counts = [part.value for part in asked if re.match("Images|Results", part.label)]
    assert counts == [most_images] * (2 + has_walks)


@pytest.mark.usefixtures("address")  # which collects what the pages leave
@pytest.mark.parametrize(
    "pixels",
    [
        np.arange(16, dtype=np.uint16).reshape(4, 4) * 4000,
        np.random.default_rng(1).integers(0, 256, (4, 4, 4), np.uint8),
    ],
    ids=["16 bits", "RGBA"],
)
def test_the_page_gives_pictures_as_they_are(pixels: np.ndarray, tmp_path: Path) -> None:
    """In all of its fields: Gradio would make bytes of red, green and blue of them."""
    gradio = pytest.importorskip("gradio", reason="Gradio is not installed")
    from ddpm_pipeline.app.page import make_page  # which needs Gradio

    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    uploaded = gradio.components.image.ImageData(path=str(path), orig_name=path.name)
    parts = make_page(AppConfig(models=("model",))).blocks.values()
    fields = [part for part in parts if isinstance(part, gradio.Image) and part.sources]
    fields = [field for field in fields if field.interactive is not False]
    assert len(fields) == 6  # a condition of each tab, a picture to edit, and two ends of a walk
    for field in fields:
        assert np.array_equal(np.asarray(field.preprocess(uploaded)), pixels)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A model of two classes, a slow one, one that is gone, and one of a picture and a number."""
    folder = tmp_path_factory.mktemp("models")
    unet = make_tiny_unet(num_class_embeds=3)
    set_facts(unet, ModelFacts(class_names=("cat", "dog"), class_counts=(5, 5)))
    pipeline(unet, num_train_timesteps=10).save_pretrained(folder / "pets")
    pipeline(make_tiny_unet(), num_train_timesteps=1000).save_pretrained(folder / "slow")
    (folder / "pets" / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 0.5}))
    unet = make_tiny_unet(2, out_channels=1, class_embed_type="identity")
    set_facts(unet, ModelFacts(conditioning=TOLD.to_dict()))
    pipeline(unet, num_train_timesteps=10).save_pretrained(folder / "told")
    return tuple(str(folder / name) for name in ("pets", "slow", "gone", "told"))


@pytest.fixture(scope="module")
def asked_hosts() -> Iterator[set[str]]:
    """Note the hosts that this process, in which the page's server runs, looks up or calls."""
    found: set[str] = set()
    is_on = True

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if is_on and event == "socket.connect" and isinstance(arguments[1], tuple):
            found.add(str(arguments[1][0]))
        elif is_on and event == "socket.getaddrinfo":
            found.add(str(arguments[0]))

    sys.addaudithook(note)  # which stays for as long as the process
    yield found
    is_on = False


@pytest.fixture(scope="module")
def address(models: tuple[str, ...], asked_hosts: set[str]) -> Iterator[str]:
    """The page with these models."""
    pytest.importorskip("gradio", reason="Gradio is not installed")
    port = free_port()
    end = serve(AppConfig(models=models, port=port))
    yield f"http://127.0.0.1:{port}/"
    end()
    with warnings.catch_warnings():  # of its loops and sockets
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def calls() -> Iterator[list[int]]:
    """Count the calls of every network of this process, in which the page's server runs."""
    found: list[int] = []

    def note(module: torch.nn.Module, *_: object) -> None:
        if isinstance(module, UNet2DModel):
            found.append(1)

    handle = torch.nn.modules.module.register_module_forward_hook(note)
    yield found
    handle.remove()


def assert_drawn(page: Page, models: tuple[str, ...], kind: str) -> None:
    """The page shows what is drawn without it."""
    wish = Wish(model=models[0], num_images=4, class_label=kind)
    *_, expected = draw(Models(models), wish, most_images=4, most_steps=10)
    found = np.asarray(page.pixels("#draw-picture").convert("RGB"))
    assert np.array_equal(found, np.asarray(expected.picture.convert("RGB")))


def grey_picture(folder: Path) -> Path:
    path = folder / "picture.png"
    Image.new("RGB", (64, 64), (90, 90, 90)).save(path)
    return path


@pytest.mark.browser
@pytest.mark.timeout(300)
class TestInTheBrowser:
    def test_images_come_out_and_classes_change_them(
        self, browser: Any, address: str, models: tuple[str, ...]
    ) -> None:
        page = Page(browser, address)
        until(lambda: page.find('input[aria-label="Class"]'))
        page.click("#draw")
        until(lambda: "ms for each image" in page.said())
        assert_drawn(page, models, "cat")
        page.choose("Class", "dog")
        cat = until(page.picture)
        page.click("#draw")
        until(lambda: page.picture() != cat and "ms for each image" in page.said())
        assert_drawn(page, models, "dog")

    def test_two_people_get_what_each_has_asked_for(
        self, browser: Any, address: str, models: tuple[str, ...]
    ) -> None:
        people = {kind: Page(browser, address) for kind in ("cat", "dog")}
        for kind, page in people.items():
            until(lambda page=page: page.find('input[aria-label="Class"]'))
            page.choose("Class", kind)
        for page in people.values():
            page.click("#draw")
        for kind, page in people.items():
            until(lambda page=page: "ms for each image" in page.said())
            assert_drawn(page, models, kind)

    def test_a_model_that_is_gone_is_a_sentence(self, browser: Any, address: str) -> None:
        page = Page(browser, address)
        page.choose("Model", "gone")
        until(lambda: any("gone" in e.text for e in page.find(".toast-body.error")))

    def test_two_people_and_a_stop_in_the_middle(
        self, browser: Any, address: str, calls: list[int]
    ) -> None:
        first, second = Page(browser, address), Page(browser, address)
        until(lambda: second.find('input[aria-label="Class"]'))
        first.choose_model("slow", has_classes=False)
        first.write("number input for Steps", "1000")
        first.click("#draw")
        until(lambda: first.said().startswith("step "))
        second.click("#draw")  # which waits for its turn
        first.click("#draw-stop")
        until(lambda: "ms for each image" in second.said())
        left = first.said()
        assert left.startswith("step ")
        assert "ms for each image" not in left
        assert settled(lambda: len(calls)) < 1000
        assert first.said() == left

    def test_a_stop_in_the_middle_of_an_edit(
        self, browser: Any, address: str, calls: list[int], tmp_path: Path
    ) -> None:
        page = Page(browser, address)
        page.choose_model("slow", has_classes=False)
        page.open_tab("Edit")
        page.upload("#given", grey_picture(tmp_path))
        page.shown('#task input[value="vary"]').click()
        page.write("number input for Strength", "1")
        page.write("number input for Steps", "1000")
        page.click("#change")
        until(lambda: page.said("#change-said").startswith("step "))
        page.click("#change-stop")
        assert 0 < settled(lambda: len(calls)) < 1000
        assert page.said("#change-said").startswith("step ")

    def test_a_painted_hole_is_filled(self, browser: Any, address: str, tmp_path: Path) -> None:
        page = Page(browser, address)
        page.open_tab("Edit")
        page.click("#change")
        until(lambda: page.told("picture must be given"))
        page.upload("#given", grey_picture(tmp_path))
        time.sleep(3)  # the picture is sent back as the model sees it, and the brush is chosen
        page.click("#change")
        until(lambda: page.told("hole must be painted"))
        page.paint("#editor")
        page.click("#change")
        until(lambda: re.match(r"\d+\.\d s$", page.said("#change-said")))
        levels = np.unique(np.asarray(page.pixels("#change-picture").convert("L")))
        assert len(levels) > 3  # more than the picture's grey and that of the lines

    def test_a_model_is_told_what_is_uploaded_and_written(
        self, browser: Any, address: str, models: tuple[str, ...], tmp_path: Path
    ) -> None:
        page = Page(browser, address)
        page.choose_model("told", has_classes=False)
        numbers = page.shown(".numbers textarea, .numbers input")
        assert until(lambda: numbers.get_attribute("value")) == "0.5"
        page.click("#draw")
        until(lambda: page.told("picture of the condition must be given"))
        page.upload(".condition", grey_picture(tmp_path))
        time.sleep(2)  # it is sent
        page.fill(".numbers textarea, .numbers input", "0.25")
        page.click("#draw")
        until(lambda: "ms for each image" in page.said())
        grey = Image.open(grey_picture(tmp_path))
        given = {"condition_picture": grey, "condition_numbers": (0.25,)}
        wish = Wish(model=models[3], num_images=4, **given)
        *_, expected = draw(Models(models), wish, most_images=4, most_steps=10)
        found = np.asarray(page.pixels("#draw-picture").convert("RGB"))
        assert np.array_equal(found, np.asarray(expected.picture.convert("RGB")))

    def test_a_walk_is_an_animation(self, browser: Any, address: str) -> None:
        page = Page(browser, address)
        page.open_tab("Walk")
        until(lambda: page.find('input[aria-label="Class"]'))
        page.write("number input for Images on the way", "3")
        page.shown('#shape input[value="animation"]').click()
        page.click("#walk")
        until(lambda: re.match(r"\d+\.\d s$", page.said("#walk-said")))
        assert page.pixels("#walk-picture").n_frames == 4  # there and back

    def test_no_request_leaves_the_machine(
        self, browser: Any, address: str, asked_hosts: set[str]
    ) -> None:
        asked_addresses(browser)
        page = Page(browser, address)
        until(lambda: page.find('input[aria-label="Class"]'))
        for tab in ("Edit", "Walk", "Numbers", "Training", "Draw"):
            page.open_tab(tab)
            time.sleep(1)  # what it loads is asked for
        page.click("#draw")
        until(lambda: "ms for each image" in page.said())
        asked = asked_addresses(browser)
        assert [url for url in asked if url.startswith(address)]
        here = (address, "data:", "blob:", "chrome:")
        assert [url for url in asked if not url.startswith(here)] == []
        assert asked_hosts <= {"127.0.0.1", "::1", "localhost"}
        assert "127.0.0.1" in asked_hosts
