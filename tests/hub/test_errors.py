"""Errors of the Hub: which are its own, which may pass, and one line for each."""

from __future__ import annotations

import pytest

from ddpm_pipeline.common import http_library
from ddpm_pipeline.hub.errors import (
    HubError,
    HubTimeoutError,
    SilenceError,
    causes,
    explained,
    is_of_the_hub,
    is_transient,
)

httpx = http_library()


def wrapped(cause: Exception) -> Exception:
    """An error of a library, far from its cause."""
    try:
        try:
            raise cause
        except Exception as error:
            raise OSError("no such model") from error
    except OSError as error:
        return error


def test_causes_are_followed_as_a_traceback_does() -> None:
    cut = httpx.ReadError("cut")
    error = wrapped(cut)
    assert list(causes(error)) == [error, cut]
    error.__cause__, error.__suppress_context__ = None, True
    assert list(causes(error)) == [error]


def test_what_may_pass_is_told_from_what_stays() -> None:
    assert is_transient(wrapped(httpx.ConnectError("refused")))
    assert not is_transient(wrapped(SilenceError("no answer within 1 s")))
    assert not is_transient(ValueError("wrong"))
    assert is_of_the_hub(wrapped(httpx.ReadTimeout("late")))
    assert not is_of_the_hub(wrapped(ValueError("wrong")))


@pytest.mark.parametrize(
    ("cause", "kind", "said"),
    [
        (
            SilenceError("no answer within 1 s"),
            HubTimeoutError,
            "no answer within 1 s from",
        ),
        (httpx.ConnectError("refused"), HubError, "cannot load 'a/b': there is no such folder"),
        (httpx.ReadTimeout("late"), HubError, "cannot load 'a/b': no answer in time from"),
    ],
)
def test_an_error_of_the_hub_is_one_line(
    cause: Exception, kind: type[HubError], said: str
) -> None:
    with pytest.raises(kind, match=said), explained("load", "a/b"):
        raise wrapped(cause)


def test_other_errors_are_left_alone() -> None:
    error = ValueError("wrong")
    with pytest.raises(ValueError, match="wrong") as raised, explained("load", "a/b"):
        raise error
    assert raised.value is error
