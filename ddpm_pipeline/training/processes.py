"""Meeting the other processes of a run, beside whatever accelerate was used for before.

    with own_accelerator(config) as accelerator: ...

A notebook may have an Accelerator of its own, in another precision or with another accumulation.
accelerate keeps these once for the whole process: they are put aside while a run has its own, and
put back after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from ddpm_pipeline.common import join_restarted_processes
from ddpm_pipeline.networks import without_accelerates_own
from ddpm_pipeline.training.log import tracker_options

if TYPE_CHECKING:
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["own_accelerator"]


@contextmanager
def own_accelerator(config: TrainingConfig) -> Iterator[Accelerator]:
    """Meet the other processes, as plain as they are, for the length of the block.

    Raises:
        ImportError: If the config's logger is not installed.
    """
    join_restarted_processes()
    kept = {
        kind: dict(kind._shared_state)  # noqa: SLF001
        for kind in (AcceleratorState, GradientState)
    }
    _put_back({kind: {} for kind in kept})
    try:
        with without_accelerates_own():
            accelerator = Accelerator(
                # Without `cpu`, accelerate does not see what torchrun starts on CPUs.
                cpu=not torch.accelerator.is_available(),
                mixed_precision="no",
                **tracker_options(config),
            )
        yield accelerator
    finally:
        _put_back(kept)


def _put_back(kept: dict[type, dict[str, object]]) -> None:
    for kind, values in kept.items():
        shared = kind._shared_state  # noqa: SLF001
        shared.clear()
        shared.update(values)
