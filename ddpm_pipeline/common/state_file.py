"""A file from which a long sum goes on after it was interrupted.

    state = StateFile("bound.state")
    if (saved := state.load()) is not None: ...       the sums of the interrupted run
    state.save({"settings": ..., "sums": ...})        now and then
    state.delete()                                    at the end

A process that is killed at any moment leaves a file that can be loaded, or none.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

import torch

from ddpm_pipeline.common.files import discard_unfinished, write_aside

__all__ = ["StateFile"]


class StateFile:
    """One file of tensors and plain values.

    Arguments:
        path: Where it is; with None nothing is loaded and nothing saved.
        writes: Whether this process saves and deletes it, or only loads it.
        largest_share: At most this share of the time goes into saving; a call that would take
            more is passed over.
    """

    def __init__(
        self,
        path: str | os.PathLike | None,
        *,
        writes: bool = True,
        largest_share: float = 1.0,
    ) -> None:
        self.path = None if path is None else Path(path)
        self._writes = writes
        self._share, self._due = largest_share, 0.0

    def load(self) -> dict[str, Any] | None:
        """Read what was saved last; None if there is no file."""
        if self.path is None or not self.path.exists():
            return None
        try:
            return torch.load(self.path, weights_only=True)
        except (EOFError, RuntimeError, UnpicklingError, BadZipFile) as error:
            reason = str(error).partition(".")[0] or "it ends too early"
            raise ValueError(
                f"state_file {str(self.path)!r} is damaged; delete it to start afresh ({reason})"
            ) from error

    def save(self, state: dict[str, Any]) -> None:
        """Write tensors and plain values, or pass if the last time was too short a while ago."""
        start = time.monotonic()
        if self.path is None or not self._writes or start < self._due:
            return
        with write_aside(self.path, sync=False) as file:
            torch.save(state, file)
        now = time.monotonic()
        self._due = now + (now - start) * (1 / self._share - 1)

    def delete(self) -> None:
        """Remove the file, since the sum is complete."""
        if self.path is not None and self._writes:
            self.path.unlink(missing_ok=True)
            discard_unfinished(self.path.parent, self.path.name)
