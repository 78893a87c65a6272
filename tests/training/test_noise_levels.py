"""The noise schedule of a run shifted by the side of its images, saved, opened and trained on."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from helpers.training_runs import tiny_config

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.noise_levels import schedule_options
from ddpm_pipeline.training.run import dry_run, train
from ddpm_pipeline.training.setup import make_scheduler

pytestmark = pytest.mark.usefixtures("random_last_layers")


@pytest.fixture(scope="module")
def shifted(random_last_layers: None, tmp_path_factory: pytest.TempPathFactory) -> TrainingConfig:
    """A finished run on images of 8 × 8, with noise for those of 4 × 4."""
    config = tiny_config(tmp_path_factory.mktemp("shifted"), ddpm_reference_side=4)
    train(config)
    return config


def log_snr(scheduler: object) -> torch.Tensor:
    alpha_bar = torch.as_tensor(scheduler.alphas_cumprod).double()[:-1]
    return (alpha_bar / (1 - alpha_bar)).log()


def test_stock_samples_with_the_shifted_schedule(shifted: TrainingConfig) -> None:
    stock = diffusers.DiffusionPipeline.from_pretrained(shifted.output_dir)
    plain = diffusers.DDPMScheduler(
        20, beta_schedule="squaredcos_cap_v2", rescale_betas_zero_snr=True
    )
    shift = log_snr(stock.scheduler) - log_snr(plain)
    # An image of twice the side has four times the places to take means of.
    assert torch.allclose(shift, torch.full_like(shift, -math.log(4)), rtol=0, atol=2e-3)
    assert stock.scheduler.alphas_cumprod[-1] == 0
    drawn = stock(num_inference_steps=3, output_type="np").images
    assert np.isfinite(drawn).all()
    ours = DDPMPipeline.from_pretrained(shifted.output_dir).scheduler
    assert torch.allclose(log_snr(ours), log_snr(stock.scheduler), rtol=0, atol=2e-3)


@pytest.mark.parametrize("resolution", [8, 16])
def test_a_run_from_the_model_has_its_noise_levels(
    shifted: TrainingConfig, tmp_path: Path, resolution: int, caplog: pytest.LogCaptureFixture
) -> None:
    kept = ("train_data_dir", "cache_dir", "train_batch_size", "mixed_precision")
    config = TrainingConfig(
        **{name: getattr(shifted, name) for name in kept},
        pretrained_model_name_or_path=shifted.output_dir,
        output_dir=str(tmp_path / "run"),
        resolution=resolution,
        ddpm_beta_schedule="squaredcos_cap_v2",
        max_train_steps=2,
        eval_batch_size=1,
        ddpm_num_inference_steps=2,
    )
    with caplog.at_level(logging.INFO, "ddpm_pipeline"):
        run = dry_run(config, measure=False)
    assert run.config.ddpm_reference_side == resolution / 2
    assert f"log SNR shifted from side {resolution // 2}" in caplog.text
    with pytest.raises(ValueError, match="ddpm_reference_side=5 is another noise schedule"):
        dry_run(config.replace(ddpm_reference_side=5), measure=False)
    train(config.replace(ddpm_reference_side=resolution / 2))
    before, after = (
        DDPMPipeline.from_pretrained(folder).scheduler.schedule.log_alpha_bar
        for folder in (shifted.output_dir, config.output_dir)
    )
    assert torch.equal(before, after)


def test_a_run_is_not_shifted_unless_it_is_told() -> None:
    config = TrainingConfig(resolution=64, rescale_betas_zero_snr=True)
    assert make_scheduler(config).config.trained_betas is None
    assert schedule_options(make_scheduler(config), 64)["ddpm_reference_side"] is None


@pytest.mark.parametrize("beta_schedule", ["linear", "squaredcos_cap_v2", "laplace"])
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize(("resolution", "side"), [(64, 32), ((48, 80), 100.5)])
def test_the_side_is_found_again(
    beta_schedule: str, zero_snr: bool, resolution: int | tuple[int, int], side: float
) -> None:
    config = TrainingConfig(
        resolution=resolution,
        ddpm_beta_schedule=beta_schedule,
        rescale_betas_zero_snr=zero_snr,
        ddpm_reference_side=side,
    )
    opened = DDPMScheduler.from_config(json.loads(make_scheduler(config).to_json_string()))
    assert schedule_options(opened, resolution)["ddpm_reference_side"] == side
    assert schedule_options(opened, None)["ddpm_reference_side"] is None


def test_betas_of_another_kind_have_no_side() -> None:
    for options in (
        {"beta_schedule": "laplace"},
        {"trained_betas": [0.1, 0.2, 0.3, 0.4]},
        {"trained_betas": [0.1] * 4, "beta_schedule": "of their own"},
    ):
        T = len(options.get("trained_betas", range(10)))
        found = schedule_options(DDPMScheduler(T, **options), 8)
        assert found["ddpm_reference_side"] is None
