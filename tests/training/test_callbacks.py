"""``train`` tells and asks its caller, and leaves an Accelerator of the caller's alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from helpers.training_runs import assert_same, metrics, outcome, tiny_config

from ddpm_pipeline.training.run import dry_run, train


def test_entries_and_savings_are_told(tmp_path: Path) -> None:
    logged, saved = [], []
    config = tiny_config(tmp_path, save_model_steps=6, validation_size=8)
    train(
        config,
        on_log=lambda step, values: logged.append({"step": step, **values}),
        on_save=lambda step, path: saved.append((step, path)),
    )
    assert logged == metrics(tmp_path / "run")
    run, checkpoints = tmp_path / "run", tmp_path / "run" / "checkpoints"
    assert saved == [
        (4, checkpoints / "step-0000004"),
        (6, run),
        (8, checkpoints / "step-0000008"),
        (10, run / "before-cooldown" / "step-0000010"),
        (12, checkpoints / "step-0000012"),
        (12, run),
    ]
    assert all(path.is_dir() for step, path in saved if step > 4)


def test_a_caller_stops_a_run_that_then_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    result = train(config, should_stop=lambda step: step == 5)
    assert (result.finished, result.global_step) == (False, 5)
    assert train(config).finished
    whole = tiny_config(tmp_path / "whole")
    train(whole)
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "whole" / "run"))


def test_an_error_of_a_callback_ends_the_run_and_frees_the_folder(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)

    def fail(step: int, values: dict[str, float]) -> None:
        raise RuntimeError(f"no {step}")

    with pytest.raises(RuntimeError, match="no 5"):
        train(config, on_log=fail)
    assert train(config).finished


@pytest.mark.parametrize(
    "options", [{}, {"mixed_precision": "bf16", "gradient_accumulation_steps": 4}]
)
def test_a_notebooks_accelerator_is_left_as_it_is(tmp_path: Path, options: dict) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        own = Accelerator(cpu=True, **options)
        train(tiny_config(tmp_path, max_train_steps=3))
        dry_run(tiny_config(tmp_path / "dry", max_train_steps=3))
        assert own.mixed_precision == options.get("mixed_precision", "no")
        assert own.gradient_accumulation_steps == options.get("gradient_accumulation_steps", 1)
        assert Accelerator(cpu=True, **options).num_processes == 1
        assert own.prepare(torch.nn.Linear(1, 1))(torch.zeros(1, 1)).shape == (1, 1)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    alone = tiny_config(tmp_path / "alone", max_train_steps=3)
    train(alone)
    Accelerator(cpu=True, mixed_precision="bf16")  # after a run, too
    AcceleratorState._reset_state(reset_partial_state=True)
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "alone" / "run"))


def test_what_is_recorded_is_json(tmp_path: Path) -> None:
    train(tiny_config(tmp_path, max_train_steps=5), on_log=lambda _, values: json.dumps(values))
