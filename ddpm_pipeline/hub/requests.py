"""Requests to the Hub that end, and errors that say in one line what was wrong.

huggingface_hub asks most of its questions without a time limit: a server that hangs, hangs the
caller. Within ``time_limit`` a request that hears nothing for so long ends with ``SilenceError``,
which nobody retries. Requests outside of it, or with a limit of their own, are left as they are.
What hf_xet transfers by itself keeps hf_xet's limits.

    with explained("load", "alice/digits"), time_limit(60.0):
        ...
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import httpx2
from huggingface_hub import set_client_factory
from huggingface_hub.utils import _http

from ddpm_pipeline.hub.errors import SilenceError, is_transient

__all__ = ["PAUSES", "REQUEST_TIMEOUT", "patiently", "time_limit"]


T = TypeVar("T")

REQUEST_TIMEOUT = 60.0
PAUSES = (1.0, 2.0)
_KINDS = ("connect", "read", "write", "pool")
_limit: ContextVar[float | None] = ContextVar("_limit", default=None)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End requests of this thread that hear nothing for some time.

    Arguments:
        seconds: Of silence, above 0; for requests that have no limit of their own.
    Raises:
        ValueError: If seconds is not above 0.
        SilenceError: When a request hears nothing for so long.
    """
    if not seconds > 0:
        raise ValueError(f"timeout must be above 0 seconds, got {seconds}")
    _limit_clients()
    token = _limit.set(seconds)
    try:
        yield
    finally:
        _limit.reset(token)


def _limited(send: Callable[..., httpx2.Response]) -> Callable[..., httpx2.Response]:
    """A client's ``send`` that heeds ``time_limit``."""

    @wraps(send)
    def send_in_time(request: httpx2.Request, **options: Any) -> httpx2.Response:  # noqa: ANN401
        seconds = _limit.get()
        own = request.extensions.get("timeout", {})
        if seconds is None or any(limit is not None for limit in own.values()):
            return send(request, **options)
        request.extensions["timeout"] = dict.fromkeys(_KINDS, seconds)
        try:
            return send(request, **options)
        except httpx2.TimeoutException as error:
            raise SilenceError(f"no answer within {seconds:g} s") from error

    return send_in_time


@dataclass(frozen=True)
class _LimitedFactory:
    """Makes clients that heed ``time_limit``, out of those that another factory makes."""

    make: Callable[[], httpx2.Client]

    def __call__(self) -> httpx2.Client:
        client = self.make()
        client.send = _limited(client.send)
        return client


def _limit_clients() -> None:
    """Let all of huggingface_hub's clients heed ``time_limit``, whoever makes them."""
    make = _http._GLOBAL_CLIENT_FACTORY  # noqa: SLF001 (there is a public setter but no getter)
    if not isinstance(make, _LimitedFactory):
        set_client_factory(_LimitedFactory(make))


_limit_clients()  # now, since it ends the connections that are open


def patiently(ask: Callable[[], T]) -> T:
    """Ask again, twice, when the network or the Hub fails for a moment.

    Arguments:
        ask: Does something that may be done twice.
    Returns:
        What it returned.
    """
    for pause in PAUSES:
        try:
            return ask()
        except Exception as error:
            if not is_transient(error):
                raise
            time.sleep(pause)
    return ask()
