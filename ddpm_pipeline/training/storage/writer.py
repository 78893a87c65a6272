"""Writing checkpoints beside training, one at a time.

    writer.submit(write, told)      waits for the one before, then returns at once
    writer.check()                  raises what went wrong meanwhile
    writer.finish()                 waits for the last

Hashing and syncing the files of a checkpoint takes seconds that a GPU would spend waiting. A
thread does it from copies that no update changes. It is none that a process leaves behind: whoever
leaves the block waits for it, and a process that is killed leaves the earlier checkpoints whole.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["CheckpointWriter"]


class CheckpointWriter:
    """Writes checkpoints, in a thread or at once.

    Arguments:
        device: Where the tensors are that are written.
        behind: Whether a thread writes; None is unless the device is the CPU, whose processors
            are busy as it is.
    """

    def __init__(self, device: torch.device, *, behind: bool | None = None) -> None:
        self._device = device
        self.behind = device.type != "cpu" if behind is None else behind
        self._thread: ThreadPoolExecutor | None = None
        self._written: Future[Path] | None = None
        self._told: Callable[[Path], None] | None = None

    def submit(self, write: Callable[[], Path], told: Callable[[Path], None]) -> None:
        """Have a checkpoint written when the one before is.

        Arguments:
            write: Writes it, from tensors that nobody changes, and gives its place.
            told: Is called with the place once it is written, by the thread that asks.
        Raises:
            OSError: If this one, or the one before, could not be written.
        """
        self.finish()
        if not self.behind:
            told(write())
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._told, ready = told, _event(self._device)
        self._written = self._thread.submit(_beside, self._device, ready, write)

    def check(self) -> None:
        """Tell of a checkpoint that is written, and wait for none.

        Raises:
            OSError: If it could not be written.
        """
        if self._written is not None and self._written.done():
            self.finish()

    def finish(self) -> None:
        """Wait for the checkpoint that is being written, and tell of it.

        Raises:
            OSError: If it could not be written.
        """
        written, self._written = self._written, None
        if written is not None:
            self._told(written.result())

    def close(self) -> None:
        """Wait for the thread to end; what it might raise is lost, for want of who would hear."""
        if self._thread is not None:
            self._thread.shutdown()
        self._thread = self._written = None


def _event(device: torch.device) -> torch.cuda.Event | None:
    """Mark what the device was given so far; None on devices that are not CUDA."""
    return torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None


def _beside(
    device: torch.device, ready: torch.cuda.Event | None, write: Callable[[], Path]
) -> Path:
    """Write, with copies from the device in a queue of their own, beside those of updates."""
    if ready is None:
        return write()
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.Stream(device)):
        torch.cuda.current_stream().wait_event(ready)
        return write()
