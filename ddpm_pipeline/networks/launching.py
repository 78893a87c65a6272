"""Runs that shard their weights, however they were launched.

    with without_accelerates_own():
        accelerator = Accelerator()
    is_sharded_run(accelerator, asked=config.fsdp)

``accelerate launch --use_fsdp`` asks for sharding as well as the option does. What it would set up
itself is not used: ``sharding`` calls torch's ``fully_shard``.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from accelerate import Accelerator

__all__ = ["is_sharded_run", "without_accelerates_own"]

logger = logging.getLogger(__name__)


_LAUNCHED = "ACCELERATE_USE_FSDP"


@contextmanager
def without_accelerates_own() -> Iterator[None]:
    """Have accelerate set up plain processes, even if it was launched with --use_fsdp.

    Its own FSDP refuses to start on CPUs.
    """
    launched = os.environ.pop(_LAUNCHED, None)
    try:
        yield
    finally:
        if launched is not None:
            os.environ[_LAUNCHED] = launched


def is_sharded_run(accelerator: Accelerator, *, asked: bool) -> bool:
    """Tell whether a run shards its weights.

    Arguments:
        accelerator: The processes.
        asked: Whether the run's options say so; a launch with --use_fsdp does too.

    Raises:
        ValueError: If accelerate was told to do something else with the weights, or there is only
            one process.
    """
    kind = accelerator.distributed_type.value
    by_launcher = kind == "FSDP" or os.environ.get(_LAUNCHED, "").lower() == "true"
    if kind not in {"NO", "FSDP"} and not kind.startswith("MULTI_"):
        raise ValueError(
            f"accelerate's distributed_type {kind} is not supported; launch with --multi_gpu or "
            "torchrun, and add --fsdp to shard the weights"
        )
    if (asked or by_launcher) and accelerator.num_processes == 1:
        raise ValueError("fsdp needs more than one process to share the weights, got 1")
    if by_launcher and accelerator.is_main_process:
        logger.info("sharding every block of the UNet; accelerate's own FSDP options are not used")
    return asked or by_launcher
