"""Saved models, and going on from a checkpoint elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from helpers.calibrations import calibration_from_errors
from helpers.training_runs import outcome, tiny_config

from ddpm_pipeline import DDPMScheduler
from ddpm_pipeline.training.run import train

pytestmark = pytest.mark.usefixtures("random_last_layers")


def test_a_finished_run_given_again_leaves_its_model_as_the_user_has_it(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    train(config)
    whole = outcome(tmp_path / "run")["model"]
    scheduler = tmp_path / "run" / "scheduler"
    plain = DDPMScheduler.from_pretrained(scheduler)
    errors = plain.schedule.one_minus_alpha_bar(torch.arange(len(plain))) / 4
    known = calibration_from_errors(plain.schedule, errors)
    plain.with_calibration(known).save_pretrained(scheduler)
    before = {p: p.read_bytes() for p in (tmp_path / "run").glob("*/*") if p.is_file()}
    assert train(config).finished
    assert {p: p.read_bytes() for p in before} == before
    assert DDPMScheduler.from_pretrained(scheduler).calibration is not None

    shutil.rmtree(tmp_path / "run" / "unet")
    assert train(config).finished
    after = outcome(tmp_path / "run")["model"]
    assert all(torch.equal(whole[name], after[name]) for name in whole)


def test_a_run_resumes_from_a_named_checkpoint_into_another_folder(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, checkpoints_total_limit=None, validation_size=0.2)
    train(config)
    start = tmp_path / "run" / "checkpoints" / "step-0000004"
    train(
        config.replace(output_dir=str(tmp_path / "elsewhere"), resume_from_checkpoint=str(start))
    )
    a, b = outcome(tmp_path / "run"), outcome(tmp_path / "elsewhere")
    assert a["metrics"] == b["metrics"]
    assert all(torch.equal(a["tensors"][name], b["tensors"][name]) for name in a["tensors"])
