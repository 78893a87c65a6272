"""The page in a real browser, which asks nobody but this machine."""

from __future__ import annotations

import gc
import json
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.pipelines import pipeline
from helpers.unets import make_tiny_unet
from PIL import Image

from ddpm_pipeline.app import AppConfig
from ddpm_pipeline.app.serving import serve
from ddpm_pipeline.networks import ModelFacts, set_facts

# Gradio's event loops and sockets are left to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for something to be there."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return value


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of host '127.0.0.1' is in use; choose"):
            serve(AppConfig(models=("model",), port=port))


def test_a_host_that_is_not_this_machine_is_named() -> None:
    with pytest.raises(ValueError, match=r"host '192\.0\.2\.1' cannot be used: "):
        serve(AppConfig(models=("model",), host="192.0.2.1", port=free_port()))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page with a model of two classes, a slow one and one that is gone."""
    pytest.importorskip("gradio", reason="Gradio is not installed")
    folder = tmp_path_factory.mktemp("models")
    unet = make_tiny_unet(num_class_embeds=3)
    set_facts(unet, ModelFacts(class_names=("cat", "dog"), class_counts=(5, 5)))
    pipeline(unet, num_train_timesteps=10).save_pretrained(folder / "pets")
    pipeline(make_tiny_unet(), num_train_timesteps=1000).save_pretrained(folder / "slow")
    (folder / "pets" / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 0.5}))
    names = tuple(str(folder / name) for name in ("pets", "slow", "gone"))
    port = free_port()
    end = serve(AppConfig(models=names, port=port))
    yield f"http://127.0.0.1:{port}/"
    end()
    with warnings.catch_warnings():  # of its loops and sockets
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        pytest.skip("chromium and its driver are not installed")
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,1000"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


class Page:
    """A tab of the browser with the page in it."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        browser.switch_to.new_window("tab")
        browser.get(address)
        self.handle = browser.current_window_handle
        until(lambda: self.find("#draw"))

    def find(self, selector: str) -> list[Any]:
        self.browser.switch_to.window(self.handle)
        return self.browser.find_elements("css selector", selector)

    def click(self, selector: str) -> None:
        self.find(selector)[0].click()

    def said(self) -> str:
        return self.find("#said textarea, #said input")[0].get_attribute("value")

    def picture(self) -> str:
        found = self.find("#picture img")
        return found[0].get_attribute("src") if found else ""

    def choose(self, label: str, text: str) -> None:
        """Choose from a list that drops down, by the end of what is written there."""

        def option() -> Any:
            """Open the list again, which an answer of the page may have closed."""
            if not self.find('ul[role="listbox"] li'):
                self.find(f'input[aria-label="{label}"]')[0].click()
            found = self.find('ul[role="listbox"] li')
            return next((one for one in found if one.text.strip().endswith(text)), None)

        until(option).click()


@pytest.mark.browser
@pytest.mark.timeout(300)
class TestInTheBrowser:
    def test_images_come_out_and_classes_change_them(self, browser: Any, address: str) -> None:
        page = Page(browser, address)
        until(lambda: page.find('input[aria-label="Class"]'))
        page.click("#draw")
        until(lambda: "ms for each image" in page.said())
        cat = until(page.picture)
        page.choose("Class", "dog")
        page.click("#draw")
        until(lambda: page.picture() != cat and "ms for each image" in page.said())

    def test_a_model_that_is_gone_is_a_sentence(self, browser: Any, address: str) -> None:
        page = Page(browser, address)
        page.choose("Model", "gone")
        until(lambda: any("gone" in e.text for e in page.find(".toast-body.error")))

    def test_two_people_and_a_stop_in_the_middle(self, browser: Any, address: str) -> None:
        first, second = Page(browser, address), Page(browser, address)
        first.choose("Model", "slow")
        time.sleep(2)
        steps = first.find('input[aria-label^="number input for Steps"]')[0]
        steps.clear()
        steps.send_keys("1000")
        first.click("#draw")
        until(lambda: first.said().startswith("step "))
        second.click("#draw")  # which waits for its turn
        first.click("#stop")
        until(lambda: "ms for each image" in second.said())
        left = first.said()
        assert left.startswith("step ")
        assert "ms for each image" not in left
        time.sleep(2)
        assert first.said() == left

    def test_a_painted_hole_is_filled(self, browser: Any, address: str, tmp_path: Path) -> None:
        from selenium.webdriver import ActionChains

        page = Page(browser, address)
        picture = tmp_path / "picture.png"
        Image.new("RGB", (64, 64), (90, 90, 90)).save(picture)
        next(tab for tab in page.find('button[role="tab"]') if tab.text == "Edit").click()
        until(lambda: page.find("#editor canvas"))
        page.click("#change")
        until(lambda: any("picture must be given" in e.text for e in page.find(".toast-body")))
        until(lambda: page.find('#editor input[type="file"]'))[0].send_keys(str(picture))
        time.sleep(3)  # the brush is chosen when the picture is there
        canvas = page.find("#editor canvas")[0]
        ActionChains(browser).move_to_element(canvas).click_and_hold().move_by_offset(
            60, 30
        ).move_by_offset(-20, 20).release().perform()
        time.sleep(2)
        page.click("#change")
        until(lambda: page.find("#changed img"))

    def test_no_request_leaves_the_machine(self, browser: Any, address: str) -> None:
        browser.get_log("performance")
        page = Page(browser, address)
        page.click("#draw")
        until(lambda: "ms for each image" in page.said())
        sent = [
            json.loads(entry["message"])["message"] for entry in browser.get_log("performance")
        ]
        answered = [
            message["params"]["response"]["url"]
            for message in sent
            if message["method"] == "Network.responseReceived"
        ]
        assert answered
        here = (address, "data:", "blob:", "chrome:")
        assert [url for url in answered if not url.startswith(here)] == []
