"""Losses kept on the device until they are logged: metrics.jsonl and accelerate's trackers.

One row (loss, gradient norm) per update is written on the device; nothing reads it back until the
log is due. Reading is also where a loss that is not finite is found, so every checkpoint is
preceded by a reading.

    {"step": 50, "epoch": 0.05, "loss": 0.31, "grad_norm": 0.8, "learning_rate": 5e-4, ...}
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

__all__ = ["DeviceLosses", "MetricsFile"]

_ADVICE = (
    "try a lower learning_rate, a lower max_grad_norm, more lr_warmup_steps or "
    "mixed_precision='no'; earlier checkpoints are kept"
)


class DeviceLosses:
    """Loss and gradient norm of the updates since the last reading.

    Arguments:
        capacity: How many updates lie between two readings at most.
        accelerator: Where the rows are, and whose processes are averaged.
        check_norms: Whether a norm that is not finite is a failure too; not under fp16, whose
            loss scale is found by overflowing.
    """

    def __init__(self, capacity: int, accelerator: Accelerator, *, check_norms: bool) -> None:
        self._rows = torch.zeros(capacity, 2, device=accelerator.device)
        self._accelerator, self._check_norms = accelerator, check_norms
        self.count = 0

    def add(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Note one update, without reading it back."""
        self._rows[self.count, 0] = loss
        self._rows[self.count, 1] = grad_norm
        self.count += 1

    def read(self, step: int) -> dict[str, float]:
        """Means over the updates since the last ``clear``, the last of which was ``step``.

        Raises:
            FloatingPointError: If one is not finite; names its step and what to try.
        """
        rows = self._rows[: self.count]
        if self._accelerator.num_processes > 1:
            rows = self._accelerator.reduce(rows.clone(), reduction="mean")
        rows = rows.double().cpu()
        checked = rows if self._check_norms else rows[:, :1]
        bad = (~checked.isfinite().all(1)).nonzero()
        if len(bad):
            first = int(bad[0])
            loss, norm = rows[first].tolist()
            raise FloatingPointError(
                f"the loss is {loss} with gradient norm {norm} at step "
                f"{step - self.count + first + 1}: {_ADVICE}"
            )
        loss, norm = rows.mean(0).tolist() if self.count else (math.nan, math.nan)
        return {"loss": loss, "grad_norm": norm}

    def clear(self) -> None:
        """Begin the next interval."""
        self.count = 0

    def state(self) -> Tensor:
        """This process's rows since the last ``clear``."""
        return self._rows[: self.count].clone()

    def load(self, state: Tensor) -> None:
        """Continue from a ``state``."""
        self.count = len(state)
        self._rows[: self.count] = state


class MetricsFile:
    """One JSON object per line, flushed at each; cut back to a step when a run resumes there.

    Arguments:
        path: The file; the main process's alone.
        step: The step to continue from; later lines, and one cut short, are dropped.
    """

    def __init__(self, path: Path, step: int) -> None:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        aside = path.with_name(f".{path.name}.tmp")
        aside.write_bytes(b"".join(kept))
        aside.replace(path)
        self._path = path

    def write(self, values: dict[str, Any]) -> None:
        """Append one line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def sync(self) -> None:
        """Have all lines on the disk, before a checkpoint that they belong to."""
        with self._path.open("rb") as file:
            os.fsync(file.fileno())


def _step_of(line: bytes) -> float:
    try:
        return json.loads(line)["step"] if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf
