"""What is said of the libraries, where they differ, against the libraries themselves."""

from __future__ import annotations

from importlib.metadata import version

from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError

from ddpm_pipeline.common import http_library, library_versions


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
