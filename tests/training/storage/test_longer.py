"""A finished run goes on with more updates, as if it had been as long from the start."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from helpers.training_runs import assert_same, outcome, tiny_config

from ddpm_pipeline.training.optimizers import steps_before_cooldown
from ddpm_pipeline.training.run import train

pytestmark = pytest.mark.usefixtures("random_last_layers")


def checkpoints(run: Path) -> list[str]:
    return sorted(p.relative_to(run).as_posix() for p in run.rglob("step-*") if p.is_dir())


# Each end once; the others of all nine are slow together.
EACH_ONCE = {(1, 13), (2, 20), (None, 40)}


@pytest.mark.parametrize(
    ("limit", "steps"),
    [
        pytest.param(*case, marks=() if case in EACH_ONCE else pytest.mark.slow)
        for case in product((1, 2, None), (13, 20, 40))
    ],
)
def test_a_longer_run_goes_on_from_before_the_cooldown(
    tmp_path: Path, limit: int | None, steps: int
) -> None:
    short = tiny_config(tmp_path, checkpoints_total_limit=limit, save_images_steps=0)
    train(short)
    assert "before-cooldown/step-0000010" in checkpoints(tmp_path / "run")
    seen: list[int] = []
    result = train(
        short.replace(max_train_steps=steps), should_stop=lambda step: bool(seen.append(step))
    )
    assert (result.finished, seen) == (True, list(range(11, steps + 1)))
    whole = tiny_config(
        tmp_path / "whole",
        checkpoints_total_limit=limit,
        save_images_steps=0,
        max_train_steps=steps,
    )
    train(whole)
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "whole" / "run"))


def test_what_the_shorter_run_made_is_kept_aside(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    train(config)
    train(config.replace(max_train_steps=40), should_stop=lambda step: step == 11)
    found = checkpoints(tmp_path / "run")
    assert "shorter-run/step-0000012" in found
    assert "checkpoints/step-0000011" in found
    assert "checkpoints/step-0000012" not in found
    assert (tmp_path / "run/shorter-run/step-0000012.png").exists()
    assert train(config.replace(max_train_steps=40)).finished


def test_a_run_that_grew_grows_again(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, save_images_steps=0)
    for steps in (12, 20, 33):
        train(config.replace(max_train_steps=steps))
    train(tiny_config(tmp_path / "whole", max_train_steps=33, save_images_steps=0))
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "whole" / "run"))
    kept = tmp_path / "run/before-cooldown"
    assert [path.name for path in kept.iterdir()] == [f"step-{steps_before_cooldown(33):07d}"]


def test_a_derived_warm_up_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """The longer run would have had a longer one; the run goes on with the one that it had."""
    config = tiny_config(tmp_path, lr_warmup_steps=None)
    train(config)
    assert train(config.replace(max_train_steps=40)).finished
    state = json.loads((tmp_path / "run/checkpoints/step-0000040/state.json").read_text())
    assert state["identity"]["config"]["lr_warmup_steps"] == 6


def test_what_a_machine_settled_is_no_reason_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that began in bfloat16 goes on so where nobody gave a precision."""
    config = tiny_config(tmp_path, mixed_precision="auto", max_train_steps=6)
    name = "ddpm_pipeline.training.resolving.computes_in_bfloat16"
    monkeypatch.setattr(name, lambda _: True)
    train(config, should_stop=lambda step: step == 3)
    monkeypatch.setattr(name, lambda _: False)
    assert train(config).finished
    state = json.loads((tmp_path / "run/checkpoints/step-0000006/state.json").read_text())
    assert state["identity"]["config"]["optimizer"] == "muon"
    with pytest.raises(ValueError, match="mixed_precision: 'bf16' → 'no'"):
        train(config.replace(mixed_precision="no"))


def test_no_message_advises_what_loses_weights(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, lr_scheduler="cosine")
    train(config)
    with pytest.raises(ValueError, match="max_train_steps: 12 → 20; the learning rates") as caught:
        train(config.replace(max_train_steps=20))
    assert str(caught.value).endswith("or another output_dir, which leaves this run as it is")
    assert "overwrite" not in str(caught.value)


def test_without_checkpoints_none_is_kept(tmp_path: Path) -> None:
    train(tiny_config(tmp_path, checkpointing_steps=0))
    assert checkpoints(tmp_path / "run") == []


@pytest.mark.parametrize("length", range(1, 40))
def test_the_last_free_step_is_the_last_whose_rates_are_shared(length: int) -> None:
    from ddpm_pipeline.training.optimizers import rates_depend_on_length

    last = steps_before_cooldown(length)
    name = "constant_with_cooldown"
    assert not rates_depend_on_length(name, last, shortest=length)
    assert last == length or rates_depend_on_length(name, last + 1, shortest=length)
    assert torch.tensor(last) >= 1
