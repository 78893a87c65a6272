"""Requests to the Hub that end.

huggingface_hub asks most of its questions without a time limit: a server that hangs, hangs the
caller. Within ``time_limit`` a request that hears nothing for so long ends with ``SilenceError``,
which nobody retries. Requests outside of it, or with a limit of their own, are left as they are.
What hf_xet transfers by itself keeps hf_xet's limits.

    with explained("load", "alice/digits"), time_limit(60.0):
        patiently(ask)            again, twice, when the Hub fails for a moment
        within(10.0, ask)         once, and all in all no longer than that
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import wraps
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from ddpm_pipeline.hub.client import Send, httpx, wrap_clients
from ddpm_pipeline.hub.errors import SilenceError, is_transient

__all__ = ["PAUSES", "REQUEST_TIMEOUT", "patiently", "time_limit", "within"]


T = TypeVar("T")

REQUEST_TIMEOUT = 60.0
PAUSES = (1.0, 2.0)
_KINDS = ("connect", "read", "write", "pool")
_limit: ContextVar[float | None] = ContextVar("_limit", default=None)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End requests of this thread that hear nothing for some time.

    The first one in a process makes huggingface_hub's clients heed it, and ends the connections
    that are open.

    Arguments:
        seconds: Of silence, above 0; for requests that have no limit of their own.
    Raises:
        ValueError: If seconds is not above 0.
        SilenceError: When a request hears nothing for so long.
    """
    if not seconds > 0:
        raise ValueError(f"timeout must be above 0 seconds, got {seconds}")
    wrap_clients(_limited)
    token = _limit.set(seconds)
    try:
        yield
    finally:
        _limit.reset(token)


def _limited(send: Send) -> Send:
    """Make a client's ``send`` heed ``time_limit``."""

    @wraps(send)
    def send_in_time(request: httpx.Request, **options: Any) -> httpx.Response:  # noqa: ANN401
        seconds = _limit.get()
        own = request.extensions.get("timeout", {})
        if seconds is None or any(limit is not None for limit in own.values()):
            return send(request, **options)
        request.extensions["timeout"] = dict.fromkeys(_KINDS, seconds)
        try:
            return send(request, **options)
        except httpx.TimeoutException as error:
            raise _silence(seconds) from error

    return send_in_time


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


def within(seconds: float, ask: Callable[[], T]) -> T:
    """Ask once, and give up after some time in all.

    ``time_limit`` alone would wait for longer: while the address of the Hub is looked up, and
    for an answer that comes byte by byte.

    Arguments:
        seconds: The time.
        ask: Does something that may be left undone; in a thread, which may outlive the call.
    Returns:
        What it returned.
    Raises:
        SilenceError: If it has not returned by then.
    """
    outcomes: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            outcomes.put((ask(), None))
        except BaseException as error:  # noqa: BLE001 (it is raised in the caller's thread)
            outcomes.put((None, error))

    with time_limit(seconds):
        thread = Thread(target=copy_context().run, args=(run,), daemon=True)
    thread.start()
    thread.join(seconds)
    if outcomes.empty():
        raise _silence(seconds)
    value, error = outcomes.get()
    if error is not None:
        raise error
    return value


def _silence(seconds: float) -> SilenceError:
    return SilenceError(f"no answer within {seconds:g} s")
