"""Losses kept on the device until they are logged, metrics.jsonl, and accelerate's trackers.

One row (loss, gradient norm) per update is written on the device; nothing reads it back until a
log entry is due. Reading also finds a loss that is not finite, so it precedes every checkpoint.
A line of metrics.jsonl is

    {"step": 50, "epoch": 0.05, "loss": 0.31, "grad_norm": 0.8, "learning_rate": 5e-4, ...}
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.tracking import get_available_trackers

from ddpm_pipeline.common import write_bytes

if TYPE_CHECKING:
    from accelerate import Accelerator
    from PIL import Image
    from torch import Tensor

    from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["DeviceLosses", "MetricsFile", "start_trackers", "track_image", "tracker_options"]


ADVICE = (
    "try a lower learning_rate, a lower max_grad_norm, more lr_warmup_steps or "
    "mixed_precision='no'; earlier checkpoints are kept"
)
"""What to try when a number is not finite."""


class DeviceLosses:
    """The loss and the gradient norm of every update since the last ``clear``.

    Arguments:
        capacity: How many updates there are at most until ``clear``.
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
        """Average over the updates since the last ``clear``, the last of which was ``step``.

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
                f"{step - self.count + first + 1}: {ADVICE}"
            )
        loss, norm = rows.mean(0).tolist() if self.count else (math.nan, math.nan)
        return {"loss": loss, "grad_norm": norm}

    def clear(self) -> None:
        """Begin the next interval."""
        self.count = 0

    def state(self) -> Tensor:
        """Give this process's rows since the last ``clear``."""
        return self._rows[: self.count].clone()

    def load(self, state: Tensor) -> None:
        """Go on from a ``state``."""
        self.count = len(state)
        # With another logging interval there may be more of them than fit.
        self._rows = torch.cat([state.to(self._rows), self._rows])


class MetricsFile:
    """A file of one JSON object per line, which only the main process writes.

    Arguments:
        path: Where it is; what it held is replaced.
        content: What it holds to begin with: nothing, or what a checkpoint kept of it.
    """

    def __init__(self, path: Path, content: bytes = b"") -> None:
        self.path = path
        write_bytes(path, content)

    def write(self, values: dict[str, Any]) -> None:
        """Append one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


# accelerate's trackers.


def tracker_options(config: TrainingConfig) -> dict[str, Any]:
    """Give the arguments of ``Accelerator`` that stand for the config's logger.

    Raises:
        ImportError: If the logger is not installed.
    """
    if config.logger == "none":
        return {}
    if config.logger not in map(str, get_available_trackers()):
        raise ImportError(f"logger {config.logger!r} needs `pip install {config.logger}`")
    return {
        "log_with": config.logger,
        "project_dir": Path(config.output_dir).expanduser() / config.logging_dir,
    }


def start_trackers(accelerator: Accelerator, config: TrainingConfig, step: int) -> None:
    """Begin to log after that step; tensorboard forgets what it holds of later steps."""
    options = {"tensorboard": {"purge_step": step + 1}} if config.logger == "tensorboard" else {}
    values = None if config.logger == "tensorboard" else config.to_dict()
    accelerator.init_trackers("ddpm", config=values, init_kwargs=options)


def track_image(accelerator: Accelerator, name: str, image: Image.Image, step: int) -> None:
    """Log a picture where the tracker takes pictures."""
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            values = np.asarray(image.convert("RGB"))[None]
            tracker.log_images({name: values}, step=step, dataformats="NHWC")
        elif tracker.name == "wandb":
            tracker.log_images({name: [image]}, step=step)
