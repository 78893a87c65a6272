"""A run has an accelerator of its own, beside that of the process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from helpers.training_runs import tiny_config

from ddpm_pipeline.training.processes import own_accelerator


@pytest.fixture(autouse=True)
def _process_without_accelerator() -> Iterator[None]:
    """Forget the accelerators of other tests, and afterwards those of this one."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def test_the_accelerator_of_the_process_is_put_back(tmp_path: Path) -> None:
    mine = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=3)
    with own_accelerator(tiny_config(tmp_path)) as accelerator:
        assert accelerator is not mine
        assert accelerator.mixed_precision == "no"
        assert accelerator.gradient_accumulation_steps == 1
    assert mine.mixed_precision == "bf16"
    assert mine.gradient_accumulation_steps == 3
    assert AcceleratorState().mixed_precision == "bf16"
    assert GradientState().num_steps == 3


def test_it_is_put_back_after_an_error_too(tmp_path: Path) -> None:
    before = dict(AcceleratorState._shared_state)
    with pytest.raises(RuntimeError, match="no"), own_accelerator(tiny_config(tmp_path)):
        raise RuntimeError("no")
    assert AcceleratorState._shared_state == before
