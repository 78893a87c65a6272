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
from urllib.parse import unquote

import httpx2
from huggingface_hub import constants, get_token, set_client_factory
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.utils import _http

__all__ = [
    "PAUSES",
    "REQUEST_TIMEOUT",
    "HubError",
    "HubTimeoutError",
    "SilenceError",
    "causes",
    "explained",
    "is_of_the_hub",
    "is_transient",
    "patiently",
    "time_limit",
]

T = TypeVar("T")

REQUEST_TIMEOUT = 60.0
PAUSES = (1.0, 2.0)
_TRANSIENT = {408, 429, 500, 502, 503, 504}
_KINDS = ("connect", "read", "write", "pool")
_limit: ContextVar[float | None] = ContextVar("_limit", default=None)


class HubError(OSError):
    """What went wrong with the Hub, in one line."""


class HubTimeoutError(HubError):
    """The Hub did not answer in time."""


class SilenceError(OSError):
    """A request heard nothing for as long as ``time_limit`` allows."""


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


# Errors.


@dataclass(frozen=True)
class _Request:
    """What was asked for when an error came."""

    action: str
    revision: str | None
    token: str | bool | None

    @property
    def has_token(self) -> bool:
        if self.token is False:
            return False
        return isinstance(self.token, str) or get_token() is not None


_LOG_IN = "log in with `hf auth login`, or pass a token"


def _not_found(_: BaseException, request: _Request) -> str:
    what = "folder and no such repository" if request.action == "load" else "repository"
    hint = "this token does not see it" if request.has_token else f"it is private: {_LOG_IN}"
    return f"there is no such {what}, or {hint}"


def _no_revision(_: BaseException, request: _Request) -> str:
    return f"it has no revision {request.revision!r} (branch, tag or commit)"


def _no_file(error: BaseException, request: _Request) -> str:  # noqa: ARG001
    path = unquote(error.response.url.path).rpartition("/")[2]
    return f"there is no file {path!r} in it"


def _offline(_: BaseException, request: _Request) -> str:
    if request.action != "load":
        return "HF_HUB_OFFLINE is set; unset it to use the network"
    return "HF_HUB_OFFLINE is set, and it is not, or not wholly, in the cache"


def _not_cached(_: BaseException, request: _Request) -> str:
    at = f" at revision {request.revision!r}" if request.revision else ""
    return f"it is not, or not wholly, in the cache{at}; without local_files_only it is fetched"


def _unreachable(_: BaseException, request: _Request) -> str:
    here = "there is no such folder here, and " if request.action == "load" else ""
    return f"{here}{constants.ENDPOINT} cannot be reached; check the network, then try again"


def _too_slow(error: BaseException, request: _Request) -> str:  # noqa: ARG001
    said = str(error) if isinstance(error, SilenceError) else "no answer in time"
    return f"{said} from {constants.ENDPOINT}; try again later"


def _bad_name(_: BaseException, request: _Request) -> str:  # noqa: ARG001
    return "there is no such folder, and a name on the Hub has the form USER/NAME"


def _status(error: BaseException, request: _Request) -> str:  # noqa: ARG001
    status = error.response.status_code
    if status in _STATUSES:
        return _STATUSES[status]
    said = error.server_message or error.response.reason_phrase
    return f"{constants.ENDPOINT} answered {status} ({said})"


_STATUSES = {
    401: f"the token is missing or not valid; {_LOG_IN}",
    403: "this token may not do that; use one with the right to write there",
    412: "the repository has changed in the meantime; try again to go on from its new state",
    429: "too many requests; try again later",
}
# The first row that any cause of an error fits.
_REASONS: list[
    tuple[tuple[type[BaseException], ...], Callable[[BaseException, _Request], str]]
] = [
    ((SilenceError,), _too_slow),
    ((LocalTokenNotFoundError,), lambda *_: f"there is no token; {_LOG_IN}"),
    ((GatedRepoError,), lambda *_: "it is gated: ask for access on its page, then log in"),
    ((RepositoryNotFoundError,), _not_found),
    ((RevisionNotFoundError,), _no_revision),
    ((RemoteEntryNotFoundError,), _no_file),
    ((OfflineModeIsEnabled,), _offline),
    ((HfHubHTTPError,), _status),
    ((HFValidationError,), _bad_name),
    ((httpx2.TimeoutException,), _too_slow),
    ((httpx2.TransportError, ConnectionError), _unreachable),
    ((LocalEntryNotFoundError, RevisionResolutionError), _not_cached),
]


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it came from, what that came from, and so on."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def is_transient(error: BaseException) -> bool:
    """Whether what failed may be well a moment later."""
    for cause in causes(error):
        if isinstance(cause, HfHubHTTPError):
            return cause.response.status_code in _TRANSIENT
        if isinstance(cause, httpx2.NetworkError | httpx2.RemoteProtocolError):
            return True
    return False


def _reason(error: BaseException, request: _Request) -> str | None:
    """What the Hub, or the way to it, did wrong; None if the error is of another kind."""
    for kinds, words in _REASONS:
        for link in causes(error):
            if isinstance(link, kinds):
                return words(link, request)
    return None


def is_of_the_hub(error: BaseException) -> bool:
    """Whether the Hub, or the way to it, is behind an error."""
    kinds = tuple(kind for kinds, _ in _REASONS for kind in kinds)
    return any(isinstance(cause, kinds) for cause in causes(error))


@contextmanager
def explained(
    action: str, repo: str, *, revision: str | None = None, token: str | bool | None = None
) -> Iterator[None]:
    """Raise what goes wrong with the Hub as a ``HubError`` of one line.

    Arguments:
        action: What is done, as in "load" or "push to".
        repo: The repository.
        revision: Of it.
        token: As huggingface_hub takes it; only whether there is one is looked at.
    Raises:
        HubError: For errors that the Hub or the way to it is behind.
    """
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        said = _reason(error, _Request(action, revision, token))
        if said is None:
            raise
        is_late = any(isinstance(link, SilenceError) for link in causes(error))
        kind = HubTimeoutError if is_late else HubError
        raise kind(f"cannot {action} {repo!r}: {said}") from error
