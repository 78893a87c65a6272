"""Errors of the Hub that say in one line what was wrong.

    with explained("load", "alice/digits", revision="v1"):
        ...                     HubError: cannot load 'alice/digits': it has no revision 'v1' ...

huggingface_hub, httpx and diffusers wrap the same few mishaps in many errors. What went wrong is
found in an error or in what caused it, and put into words by a table of reasons. The table also
tells an error of the Hub from any other, and one that may pass from one that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote

from huggingface_hub import constants, get_token
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

from ddpm_pipeline.hub.client import httpx

__all__ = [
    "HubError",
    "HubTimeoutError",
    "NotOnHubError",
    "SilenceError",
    "causes",
    "explained",
    "is_of_the_hub",
    "is_transient",
]


class HubError(OSError):
    """What went wrong with the Hub, in one line."""


class NotOnHubError(HubError):
    """The Hub was asked and shows no such repository; any other error leaves that open."""


class HubTimeoutError(HubError):
    """The Hub did not answer in time."""


class SilenceError(OSError):
    """A request heard nothing for as long as ``time_limit`` allows."""


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
        HubError: For errors that the Hub or the way to it is behind; NotOnHubError if there is no
            such repository, HubTimeoutError after a silence.
    """
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        said = _reason(error, _Request(action, revision, token))
        if said is None:
            raise
        raise _kind(error)(f"cannot {action} {repo!r}: {said}") from error


def _kind(error: Exception) -> type[HubError]:
    """Tell which HubError stands for an error."""
    links = [*causes(error)]
    if any(isinstance(link, SilenceError) for link in links):
        return HubTimeoutError
    is_absent = any(
        type(link) is RepositoryNotFoundError for link in links
    )  # a kind is gated ones
    return NotOnHubError if is_absent else HubError


def is_of_the_hub(error: BaseException) -> bool:
    """Tell whether the Hub, or the way to it, is behind an error."""
    kinds = tuple(kind for kinds, _ in _REASONS for kind in kinds)
    return any(isinstance(cause, kinds) for cause in causes(error))


def is_transient(error: BaseException) -> bool:
    """Tell whether what failed may be well a moment later."""
    for cause in causes(error):
        if isinstance(cause, HfHubHTTPError):
            return cause.response.status_code in _TRANSIENT
        if isinstance(cause, httpx.NetworkError | httpx.RemoteProtocolError):
            return True
    return False


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what it came from, what that came from, and so on."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


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


def _reason(error: BaseException, request: _Request) -> str | None:
    """Say what the Hub, or the way to it, did wrong; None if the error is of another kind."""
    for kinds, words in _REASONS:
        for link in causes(error):
            if isinstance(link, kinds):
                return words(link, request)
    return None


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


_TRANSIENT = {408, 429, 500, 502, 503, 504}
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
    ((httpx.TimeoutException,), _too_slow),
    ((httpx.TransportError, ConnectionError), _unreachable),
    ((LocalEntryNotFoundError, RevisionResolutionError), _not_cached),
]
