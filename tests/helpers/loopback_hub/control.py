"""What a test asks of the server: ``/_test/log``, ``faults``, ``state`` and ``reset``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from helpers.loopback_hub.faults import Fault
from helpers.loopback_hub.store import HubError

if TYPE_CHECKING:
    from helpers.loopback_hub.server import Request

__all__ = ["answer"]


def answer(request: Request, what: str) -> None:
    if what not in _ANSWERS:
        raise HubError(404, f"no /_test/{what}")
    _ANSWERS[what](request)


def _log(request: Request) -> None:
    """All requests since the last time."""
    records = list(request.log)
    request.log.clear()
    request.send(200, records)


def _faults(request: Request) -> None:
    request.faults.set([Fault(**fault) for fault in request.json()["faults"]])
    request.send(200, {})


def _state(request: Request) -> None:
    """Every repository, with all its commits and their files."""
    with request.store.lock:
        state = {name: asdict(repo) for name, repo in request.store.repos.items()}
    request.send(200, state)


def _reset(request: Request) -> None:
    """No repositories, no contents, no faults, no requests."""
    request.faults.set([])
    request.store.clear()
    request.log.clear()
    request.send(200, {})


_ANSWERS = {"log": _log, "faults": _faults, "state": _state, "reset": _reset}
