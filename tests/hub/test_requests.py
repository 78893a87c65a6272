"""Requests that end: a limit of silence, patience, and a limit in all."""

from __future__ import annotations

import subprocess
import sys
import time
from threading import Event
from typing import TYPE_CHECKING

import pytest

from ddpm_pipeline.common import http_library
from ddpm_pipeline.hub import requests
from ddpm_pipeline.hub.errors import SilenceError
from ddpm_pipeline.hub.requests import PAUSES, patiently, time_limit, within

if TYPE_CHECKING:
    from helpers.hubs import Hub

httpx = http_library()


def test_requests_outside_of_a_time_limit_are_left_alone(hub: Hub) -> None:
    code = (
        f"import {httpx.__name__} as httpx\n"
        "from huggingface_hub import get_session, set_client_factory\n"
        "from ddpm_pipeline.hub.requests import time_limit\n"
        "limits = []\n"
        "note = lambda request: limits.append(request.extensions['timeout'])\n"
        "make = lambda: httpx.Client(timeout=None, event_hooks={'request': [note]})\n"
        "set_client_factory(make)  # after ours, and still its clients heed the limit\n"
        f"url = {hub.url!r} + '/api/whoami-v2'\n"
        "ask = lambda **options: get_session().get(url, **options)\n"
        "ask()\n"
        "with time_limit(7): ask(), ask(timeout=3)\n"
        "ask()\n"
        "print([limit['read'] for limit in limits])"
    )
    assert hub.python(code).stdout.strip() == "[None, 7, 3, None]"


def test_importing_replaces_nothing_of_huggingface_hub() -> None:
    code = (
        "from huggingface_hub.utils import _http\n"
        "before = _http._GLOBAL_CLIENT_FACTORY\n"
        "import ddpm_pipeline.hub.requests as ours, ddpm_pipeline.hub.loading\n"
        "print(_http._GLOBAL_CLIENT_FACTORY is before)\n"
        "with ours.time_limit(1): pass\n"
        "wrapped = _http._GLOBAL_CLIENT_FACTORY\n"
        "with ours.time_limit(1): pass\n"
        "print(wrapped is not before, wrapped is _http._GLOBAL_CLIENT_FACTORY)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True"] * 3


def test_a_limit_is_above_0() -> None:
    with pytest.raises(ValueError, match="timeout must be above 0 seconds, got 0"), time_limit(0):
        pass


def test_patience_is_for_what_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(requests.time, "sleep", pauses.append)
    errors: list[Exception] = [httpx.ReadError("cut"), httpx.ConnectError("refused")]

    def ask() -> str:
        if errors:
            raise errors.pop(0)
        return "answer"

    assert patiently(ask) == "answer"
    assert pauses == list(PAUSES)
    errors.append(KeyError("wrong"))
    with pytest.raises(KeyError):
        patiently(ask)
    errors.extend([httpx.ReadError("cut")] * 3)
    with pytest.raises(httpx.ReadError):
        patiently(ask)


def test_an_answer_in_time_is_given_back_and_an_error_raised() -> None:
    assert within(60.0, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(60.0, lambda: 1 / 0)


def test_what_takes_too_long_is_given_up() -> None:
    ends = Event()
    began = time.monotonic()
    with pytest.raises(SilenceError, match=r"no answer within 0\.1 s"):
        within(0.1, lambda: ends.wait(60))
    assert time.monotonic() - began < 5
    ends.set()
