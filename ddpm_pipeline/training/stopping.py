"""Stopping a run in good order: on SIGTERM or SIGINT it ends its step and saves.

A second SIGINT ends the process at once. All processes of a run stop after the same step: each
step they tell one another, on the host, whether any of them was signalled.
"""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Self

import torch
from torch import distributed

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["ASKED", "StopSignals"]

logger = logging.getLogger(__name__)


_SIGNALS = (signal.SIGTERM, signal.SIGINT)
ASKED = 1 << 16
"""What stands for a caller who asked to stop, beside the numbers of signals."""


class StopSignals:
    """Signals that are noted rather than obeyed while this is entered, in the main thread."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._alone = accelerator.num_processes == 1
        self._group = None
        if not self._alone and distributed.get_backend() != "gloo":
            self._group = distributed.new_group(backend="gloo")
        self._received = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._received = number
        # From now on the operating system itself ends the process, whatever Python is doing.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        logger.warning("%s: saving after this step", signal.Signals(number).name)

    def received(self, *, asked: bool = False) -> int:
        """Give the signal that any process of the run got so far, ASKED, or 0.

        Every process must call this after every step.

        Arguments:
            asked: Whether this process's caller asked to stop.
        """
        mine = self._received or (ASKED if asked else 0)
        if self._alone:
            return mine
        number = torch.tensor(mine)
        distributed.all_reduce(number, distributed.ReduceOp.MAX, group=self._group)
        return int(number)
