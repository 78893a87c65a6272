"""The private parts of huggingface_hub that pushing and loading stand on, all in one place.

    wrap_clients(limited)      every client that huggingface_hub makes sends through a function
    is_xet_available()         whether uploads go by hf_xet
    httpx                      what it sends with, under whichever name

It has a public setter for what makes its clients but no getter, without which a factory that the
user has set would be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from huggingface_hub import set_client_factory
from huggingface_hub.utils import _http
from huggingface_hub.utils._runtime import is_xet_available

from ddpm_pipeline.common import http_library

__all__ = ["Send", "httpx", "is_xet_available", "wrap_clients"]


httpx = http_library()
Send = Callable[..., httpx.Response]


def wrap_clients(wrap: Callable[[Send], Send]) -> None:
    """Let every client that huggingface_hub makes from now on send through a function.

    It ends the connections that are open, unless this was done before and nobody has set another
    factory since.

    Arguments:
        wrap: Makes a client's new ``send`` of its own; always the same.
    """
    make = _http._GLOBAL_CLIENT_FACTORY  # noqa: SLF001
    if not isinstance(make, _WrappingFactory):
        set_client_factory(_WrappingFactory(make, wrap))


@dataclass(frozen=True)
class _WrappingFactory:
    """A factory of clients that wraps those of another one."""

    make: Callable[[], httpx.Client]
    wrap: Callable[[Send], Send]

    def __call__(self) -> httpx.Client:
        client = self.make()
        client.send = self.wrap(client.send)
        return client
