"""What a caller of ``train`` may have called while a run goes on.

train(config, on_log=print, should_stop=lambda step: step >= 100)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Callbacks"]


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that a run calls; None is not called.

    Arguments:
        on_log: f(step, values) after every entry of metrics.jsonl, on the main process.
        on_save: f(step, folder) after the model or a checkpoint is saved there, on the main
            process.
        should_stop: f(step) after every update, on every process; if it is true on any, the run
            saves a checkpoint and ends, and the same call goes on from there.
    """

    on_log: Callable[[int, dict[str, float]], object] | None = None
    on_save: Callable[[int, Path], object] | None = None
    should_stop: Callable[[int], bool] | None = None

    def logged(self, step: int, values: dict[str, float]) -> None:
        """Tell of an entry of metrics.jsonl."""
        if self.on_log is not None:
            self.on_log(step, dict(values))

    def saved(self, step: int, folder: Path) -> None:
        """Tell of a model or a checkpoint."""
        if self.on_save is not None:
            self.on_save(step, folder)

    def asks_to_stop(self, step: int) -> bool:
        """Ask whether the run is to end after that many updates."""
        return self.should_stop is not None and bool(self.should_stop(step))
