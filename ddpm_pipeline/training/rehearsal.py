"""Timing updates that change nothing, before a run or in place of one.

try_threads(config, learner, data)      fewer threads, where they are far faster; or None
measure_update(config, learner, data)   seconds of a real update, with their spread
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING

import torch

from ddpm_pipeline.common import sides_of
from ddpm_pipeline.data import Batch
from ddpm_pipeline.training.threads import choose_threads

if TYPE_CHECKING:
    from ddpm_pipeline.data import BatchSource
    from ddpm_pipeline.training.config import TrainingConfig
    from ddpm_pipeline.training.data import TrainingData
    from ddpm_pipeline.training.learner import Learner

__all__ = ["UpdateTime", "measure_update", "try_threads"]

logger = logging.getLogger(__name__)


_FEWEST, _MOST = 3, 10  # updates that are measured
_ENOUGH = 10.0  # seconds


@dataclass(frozen=True)
class UpdateTime:
    """How long an update takes.

    Arguments:
        seconds: The mean of those measured.
        standard_error: Of that mean.
        count: How many were measured.
    """

    seconds: float
    standard_error: float
    count: int


def try_threads(config: TrainingConfig, learner: Learner, data: TrainingData) -> int | None:
    """Find whether fewer threads are far faster than all; None if not, or if it is not to be.

    Nothing is tried on GPUs, with several processes, with one thread, with `deterministic`, or
    where num_threads is given.

    Arguments:
        config: Resolved.
        learner: Makes the updates, with its network in training mode.
        data: The images, of whose shape the tried ones are.
    """
    threads = torch.get_num_threads()
    alone = learner.device.type == "cpu" and learner.accelerator.num_processes == 1
    if not alone or threads == 1 or config.deterministic or config.num_threads is not None:
        return None
    shape = (config.train_batch_size, data.channels, *sides_of(config.resolution))
    has_labels = data.num_classes is not None
    labels = torch.zeros(shape[0], dtype=torch.int64) if has_labels else None
    dtype = torch.uint8 if data.scale is None else getattr(torch, data.scale.dtype)
    batch = Batch(torch.zeros(shape, dtype=dtype), labels)
    if data.given is not None:
        batch = data.train.batch(torch.arange(shape[0]) % len(data.train))

    def time_update() -> float:
        began = time.perf_counter()
        learner.rehearse(batch)
        return time.perf_counter() - began

    choice = choose_threads(time_update, threads)
    if choice.threads == threads:
        return None
    logger.warning("%s", choice)
    return choice.threads


def measure_update(config: TrainingConfig, learner: Learner, batches: BatchSource) -> UpdateTime:
    """Make a few updates, and time them; the first, which allocates and compiles, is not.

    Arguments:
        config: Resolved.
        learner: Makes the updates; it is of no use afterwards.
        batches: This process's batches.
    """
    learner.unet.train()
    times: list[float] = []
    for step in range(min(_MOST + 1, config.max_train_steps + 1)):
        began = time.perf_counter()
        loss, _ = learner.update(min(step, config.max_train_steps - 1), batches)
        loss.item()  # waits for the device
        times.append(time.perf_counter() - began)
        if len(times) > _FEWEST and sum(times) > _ENOUGH:
            break
    measured = times[1:]
    error = stdev(measured) / math.sqrt(len(measured)) if len(measured) > 1 else math.nan
    return UpdateTime(mean(measured), error, len(measured))
