"""What may differ between a run and its continuation."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training_runs import blobs, outcome, run_forked, tiny_config

from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.optimizers import learning_rates
from ddpm_pipeline.training.run import train
from ddpm_pipeline.training.storage.identity import differing_fields

pytestmark = pytest.mark.usefixtures("random_last_layers")


def test_a_continuation_may_differ_in_what_leaves_the_weights_alone() -> None:
    old = TrainingConfig(max_train_steps=10)
    free = {"output_dir": "b", "logger": "wandb", "checkpointing_steps": 7, "cache_dir": "c"}
    assert differing_fields(old, old.replace(**free), step=0) == {}
    assert differing_fields(old, old.replace(seed=1, dropout=0.5), step=0) == {
        "seed": (0, 1),
        "dropout": (0.0, 0.5),
    }
    cosine = old.replace(lr_scheduler="cosine")
    longer = cosine.replace(max_train_steps=20)
    assert "max_train_steps" in differing_fields(cosine, longer, step=0)
    for name in ("constant", "constant_with_warmup"):
        constant = old.replace(lr_scheduler=name)
        assert differing_fields(constant, constant.replace(max_train_steps=20), step=9) == {}


@pytest.mark.parametrize("step", [0, 1, 7, 8, 9, 10])
@pytest.mark.parametrize("steps", [9, 10, 11, 40])
def test_a_run_with_a_cooldown_may_change_its_length_until_the_rates_would_differ(
    step: int, steps: int
) -> None:
    old = TrainingConfig(max_train_steps=10, learning_rate=1.0, lr_warmup_steps=0)
    new = old.replace(max_train_steps=steps)
    before, after = (
        [learning_rates(config, config.max_train_steps)(i) for i in range(min(step, steps))]
        for config in (old, new)
    )
    assert (differing_fields(old, new, step=step) == {}) == (before == after)


def test_another_warm_up_that_was_given_is_no_continuation() -> None:
    config = TrainingConfig(max_train_steps=10, lr_scheduler="constant_with_warmup")
    short = config.replace(lr_warmup_steps=5)
    longer = config.replace(lr_warmup_steps=7, max_train_steps=20)
    assert differing_fields(short, longer, step=0) == {"lr_warmup_steps": (5, 7)}


def test_where_a_run_is_pushed_to_does_not_make_it_another() -> None:
    plain = TrainingConfig(max_train_steps=1)
    pushing = plain.replace(
        push_to_hub=True,
        hub_model_id="alice/blobs",
        hub_strategy="checkpoint",
        hub_private=True,
        hub_timeout=3.0,
        resume_from_checkpoint="hub:alice/blobs@v1",
    )
    assert differing_fields(plain, pushing, step=0) == {}
    assert pushing.to_dict()["resume_from_checkpoint"] == "hub:alice/blobs@v1"
    assert TrainingConfig.from_dict(pushing.to_dict()) == pushing


def test_a_different_configuration_is_refused_with_the_differences(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    train(config)
    other = config.replace(learning_rate=1e-4, train_batch_size=2)
    with pytest.raises(
        ValueError, match=r"train_batch_size: 4 → 2, learning_rate: 0\.001 → 0\.0001\)"
    ):
        train(other)
    np.save(tmp_path / "images.npy", blobs(seed=1))
    with pytest.raises(ValueError, match="train_data: "):
        train(config)


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, max_train_steps=4)
    assert run_forked(config, processes=2) == [0, 0]
    with pytest.raises(ValueError, match="num_processes: 2 → 1"):
        train(config)


def test_more_steps_may_follow_where_the_learning_rate_allows(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, lr_scheduler="constant", save_images_steps=0)
    train(config.replace(max_train_steps=4))
    train(config.replace(max_train_steps=8, checkpointing_steps=2))
    whole = tiny_config(tmp_path / "b", lr_scheduler="constant", save_images_steps=0)
    train(whole.replace(max_train_steps=8))
    a, b = outcome(tmp_path / "run")["model"], outcome(tmp_path / "b" / "run")["model"]
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_may_be_made_longer_until_its_cooldown_begins(tmp_path: Path) -> None:
    """Elsewhere, from a checkpoint that is named; test_longer.py has it in the same folder."""
    short = tiny_config(
        tmp_path, max_train_steps=10, checkpointing_steps=8, checkpoints_total_limit=None
    )
    train(short)
    start = tmp_path / "run" / "checkpoints" / "step-0000008"
    shutil.copytree(start, kept := tmp_path / "step-0000008")
    for path in (start, tmp_path / "run" / "before-cooldown"):
        shutil.rmtree(path)
    with pytest.raises(
        ValueError, match=r"max_train_steps: 10 → 20; .* of its 10 .*, the last 20% of which cools"
    ):
        train(short.replace(max_train_steps=20))
    longer = short.replace(max_train_steps=20, output_dir=str(tmp_path / "longer" / "run"))
    train(longer.replace(resume_from_checkpoint=str(kept)))
    whole = short.replace(max_train_steps=20, output_dir=str(tmp_path / "whole" / "run"))
    train(whole)
    a, b = (outcome(tmp_path / name / "run")["model"] for name in ("longer", "whole"))
    assert all(torch.equal(a[name], b[name]) for name in a)
