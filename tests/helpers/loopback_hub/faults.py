"""What goes wrong on demand."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Literal

__all__ = ["Fault", "Faults"]


@dataclass
class Fault:
    """A fault of the next requests of a method whose path, with the query, holds a pattern.

    Arguments:
        mode: "drop" closes the connection at once; "status" answers with that status; "hang"
            never answers; "lose_answer" does the work and closes the connection; "truncate"
            closes it in the middle of the content, sent or received.
        method: Of the request.
        path: Regular expression, searched for.
        times: How many requests.
        status: For "status".
        after: Bytes, for "truncate".
    """

    mode: Literal["drop", "status", "hang", "lose_answer", "truncate"]
    method: str
    path: str
    times: int = 1
    status: int = 503
    after: int = 0


class Faults:
    """The faults to come."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._is_over = threading.Event()

    def set(self, faults: list[Fault]) -> None:
        """Replace all faults; what hangs is let go."""
        with self._lock:
            self._is_over.set()
            self._is_over = threading.Event()
            self._faults = faults

    def take(self, method: str, path: str) -> Fault | None:
        """The fault of this request, if it has one."""
        with self._lock:
            for fault in self._faults:
                if fault.times and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def wait(self, fault: Fault) -> None:
        """Hang until the faults are replaced."""
        with self._lock:
            is_over = self._is_over
            if fault not in self._faults:
                return
        is_over.wait()
