"""What is said of the libraries, where they differ, against the libraries themselves."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image

from ddpm_pipeline.common import http_library, library_versions, saving_options


def test_the_http_library_is_that_of_the_hubs_clients_and_errors() -> None:
    httpx = http_library()
    assert isinstance(get_session(), httpx.Client)
    assert issubclass(HfHubHTTPError, httpx.HTTPError)


def test_versions_are_those_that_were_installed() -> None:
    told = library_versions()
    for name, text in told.items():
        assert text.partition("+")[0] == version(name).partition("+")[0]
        assert type(text) is str
    assert list(told) == ["torch", "diffusers"]


@pytest.mark.parametrize("size", [(15, 15), (6, 20), (16, 16)])
def test_an_icon_holds_a_small_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "a.ico"
    Image.new("RGB", size, "red").save(path, **saving_options(path, size))
    with Image.open(path) as picture:
        assert picture.size == size
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_other_pictures_are_saved_as_pillow_does() -> None:
    assert saving_options(Path("a.png"), (8, 8)) == saving_options(Path("a.ico"), (32, 16)) == {}
