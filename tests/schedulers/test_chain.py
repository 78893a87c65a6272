"""Steps with a calibration and with DDIM's noise, and the calibration's way through diffusers."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import diffusers
import pytest
import torch
from helpers.calibrations import calibration_from_errors
from helpers.exact_errors import denoising_errors
from helpers.oracles import gaussian, linear_betas, mixture
from torch.testing import assert_close

from ddpm_pipeline import Calibration, DDPMPipeline, DDPMScheduler, NoiseSchedule, calibrate
from ddpm_pipeline.common.fingerprints import weights_hashes
from ddpm_pipeline.diffusion.forward_process import posterior_variance
from ddpm_pipeline.diffusion.reverse_process import reverse
from ddpm_pipeline.schedulers.optimal import optimal_timesteps

LINEAR = NoiseSchedule.linear(1000)
STOCK = diffusers.DDPMScheduler
MakeUNet = Callable[..., diffusers.UNet2DModel]


@lru_cache
def known(data: str = "mixture") -> Calibration:
    data, second_moment = {
        "mixture": (mixture(), 0.37),
        "gaussian": (gaussian(0, 0.5), 0.25),
    }[data]
    return calibration_from_errors(LINEAR, denoising_errors(data), second_moment=second_moment)


def calibrated(**options: object) -> DDPMScheduler:
    return DDPMScheduler(clip_sample=False).with_calibration(known(), **options)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(scheduler: DDPMScheduler, data: str, count: int, eta: float | None = None) -> torch.Tensor:
    """Samples by the scheduler's chain with a perfect network, float64."""
    model = {"gaussian": gaussian(0, 0.5), "mixture": mixture()}[data].denoiser(linear_betas())
    x = torch.randn(count, 1, dtype=torch.float64, generator=seeded(3))
    for t in scheduler.timesteps:
        output = model(x, t.expand(count))
        x = scheduler.step(output, t, x, generator=seeded(int(t)), eta=eta).prev_sample
    return x


# Steps.


@pytest.mark.parametrize("eta", [None, 0.0, 0.5, 1.0])
def test_a_gaussian_is_drawn_right_with_few_steps_and_any_eta(eta: float | None) -> None:
    """The analytic variance makes every marginal right, with or without the noise of DDIM."""
    scheduler = DDPMScheduler(clip_sample=False).with_calibration(known("gaussian"))
    scheduler.set_timesteps(timesteps=[999, 600, 300, 100, 20, 2, 0])
    x = run(scheduler, "gaussian", 40_000, eta)
    assert x.std().item() == pytest.approx(0.5, rel=0.015)
    small = DDPMScheduler(clip_sample=False)
    small.set_timesteps(timesteps=[999, 600, 300, 100, 20, 2, 0])
    assert abs(run(small, "gaussian", 40_000, eta).std().item() / 0.5 - 1) > 0.03


def test_reverse_is_the_process_with_the_variance_never_capped() -> None:
    scheduler = calibrated()
    scheduler.set_timesteps(timesteps=[999, 500, 3, 0])
    x_t, output = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    for t, s in [(999, 500), (500, 3), (3, 0), (0, -1)]:
        found = scheduler.reverse(output, t, x_t)
        v = known().x_0_variance[t]
        expected = reverse(
            scheduler.schedule, output, x_t, t, s, variance_type="analytic", x_0_variance=v
        )
        assert_close(found.mean, expected.mean)
        assert_close(found.log_var, expected.log_var)


def noise_of(scheduler: DDPMScheduler, t: int, eta: float | None = None) -> float:
    zeros = torch.zeros(100_000, 1, dtype=torch.float64)
    step = scheduler.step(zeros, t, zeros, generator=seeded(), eta=eta)
    return step.prev_sample.std().item()


@pytest.mark.parametrize("levels", [1, 2])
def test_the_last_noise_is_capped_and_no_other(levels: int) -> None:
    scheduler = calibrated(last_noise_levels=levels)
    scheduler.set_timesteps(timesteps=[999, 500, 200, 0])
    uncapped = [scheduler.reverse(torch.zeros(1, 1), t, torch.zeros(1, 1)) for t in (500, 200)]
    assert noise_of(scheduler, 500) == pytest.approx(uncapped[0].std.item(), rel=0.02)
    assert uncapped[1].std > 0.02
    mean_noise = noise_of(scheduler, 200) * math.sqrt(2 / math.pi)
    forward = posterior_variance(LINEAR, 200, 0).sqrt().item() * math.sqrt(2 / math.pi)
    assert mean_noise == pytest.approx(max(levels * 2 / 255, forward), rel=0.02)
    assert noise_of(scheduler, 0) == 0


def test_a_chain_that_ends_in_noise_keeps_the_noise_of_the_forward_process() -> None:
    scheduler = calibrated()
    scheduler.set_timesteps(timesteps=[999, 500])
    forward = posterior_variance(LINEAR, 999, 500).sqrt().item()
    assert noise_of(scheduler, 999) == pytest.approx(forward, rel=0.02)
    assert noise_of(scheduler, 999, eta=0.5) == pytest.approx(forward / 2, rel=0.02)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_eta_takes_the_steps_of_diffusers_ddim(eta: float) -> None:
    ours = DDPMScheduler(clip_sample=False, timestep_spacing="trailing")
    stock = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    ours.set_timesteps(10)  # stock lands between its own timesteps unless K divides T
    stock.set_timesteps(10)
    x_t, output = torch.randn(2, 4, 1, 8, 8)
    for t in ours.timesteps:
        generators = seeded(1), seeded(1)
        found = ours.step(output, t, x_t, generators[0], eta=eta).prev_sample
        expected = stock.step(output, t, x_t, eta=eta, generator=generators[1]).prev_sample
        assert_close(found, expected, rtol=1e-4, atol=1e-4)
        if eta == 0:
            assert torch.equal(generators[0].get_state(), seeded(1).get_state())
    batched = ours.step(output, ours.timesteps[2].expand(4), x_t, seeded(1), eta=eta)
    alone = ours.step(output, ours.timesteps[2], x_t, seeded(1), eta=eta)
    assert_close(batched.prev_sample, alone.prev_sample)


def test_eta_leaves_learned_variances_aside() -> None:
    learned, fixed = DDPMScheduler(variance_type="learned_range"), DDPMScheduler()
    x_t, output = torch.randn(4, 1, 8, 8), torch.randn(4, 2, 8, 8)
    found = learned.step(output, 500, x_t, seeded(), eta=0.5).prev_sample
    expected = fixed.step(output[:, :1], 500, x_t, seeded(), eta=0.5).prev_sample
    assert torch.equal(found, expected)
    assert learned.reverse(output, 500, x_t, eta=0.5).log_var.ndim == 0


def test_impossible_eta_is_refused() -> None:
    x_t = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"eta must be a number in \[0, 1\], got 1.5"):
        DDPMScheduler().step(x_t, 5, x_t, eta=1.5)


# Spacings.


@pytest.mark.parametrize("variance_type", ["analytic", "fixed_large"])
def test_optimal_spacings_are_those_of_the_calibration(variance_type: str) -> None:
    for spacing, objective in [("optimal", "likelihood"), ("optimal_samples", "samples")]:
        scheduler = calibrated(timestep_spacing=spacing, variance_type=variance_type)
        scheduler.set_timesteps(12)
        expected = optimal_timesteps(
            known(), LINEAR, 12, variance_type=variance_type, objective=objective
        )
        assert torch.equal(scheduler.timesteps, expected)


@pytest.mark.parametrize("spacing", ["optimal", "optimal_samples"])
def test_what_needs_a_calibration_says_so(spacing: str) -> None:
    with pytest.raises(ValueError, match=f"timestep_spacing '{spacing}' needs a calibration"):
        DDPMScheduler(timestep_spacing=spacing).set_timesteps(5)
    scheduler, x_t = DDPMScheduler(variance_type="analytic"), torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="variance_type 'analytic' needs a calibration"):
        scheduler.step(x_t, 5, x_t)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (DDPMScheduler(100), "made for 1000 timesteps, but the scheduler has 100"),
        (DDPMScheduler(beta_end=0.021), "another noise schedule than the scheduler's"),
        (DDPMScheduler(beta_schedule="squaredcos_cap_v2"), "another noise schedule"),
    ],
)
def test_a_calibration_for_another_schedule_is_refused(
    scheduler: DDPMScheduler, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        scheduler.set_calibration(known())
    with pytest.raises(ValueError, match="last_noise_levels must be above 0, got 0"):
        scheduler.set_calibration(None, last_noise_levels=0)


# Through diffusers and back.


def test_a_calibration_survives_stock_bit_for_bit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = calibrated(timestep_spacing="optimal", last_noise_levels=1)
    ours.save_pretrained(tmp_path / "ours")
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)
    try:
        stock = STOCK.from_pretrained(tmp_path / "ours")
        stock.set_timesteps(10)
        stock.save_pretrained(tmp_path / "stock")
        other = diffusers.UniPCMultistepScheduler.from_config(stock.config)
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records
    assert stock.config.variance_type == "fixed_small"
    assert other.config.timestep_spacing == stock.config.timestep_spacing == "trailing"
    back = DDPMScheduler.from_pretrained(tmp_path / "stock")
    assert json.dumps(back.calibration.to_dict()) == json.dumps(known().to_dict())
    assert (back.variance_type, back.timestep_spacing) == ("analytic", "optimal")
    assert back.last_noise_levels == 1
    assert back.to_json_string() == ours.to_json_string()
    upgraded = DDPMScheduler.from_config(stock.config)
    assert torch.equal(upgraded.x_0_variance, ours.x_0_variance)


def test_a_config_gives_any_number_of_schedulers() -> None:
    ours = calibrated(timestep_spacing="optimal")
    before = json.dumps(dict(ours.config))
    for _ in range(2):
        again = DDPMScheduler.from_config(ours.config, variance_type="fixed_large")
        assert again.calibration.to_dict() == known().to_dict()
        assert again.timestep_spacing == "optimal"
    assert json.dumps(dict(ours.config)) == before


def test_a_calibration_can_be_forgotten(tmp_path: Path) -> None:
    scheduler = calibrated()
    scheduler.set_calibration(None)
    scheduler.save_pretrained(tmp_path)
    loaded = DDPMScheduler.from_pretrained(tmp_path)
    assert loaded.calibration is loaded.x_0_variance is None
    assert loaded.variance_type == "analytic"


def test_what_is_passed_by_position_is_not_forgotten() -> None:
    for scheduler in (DDPMScheduler(100), STOCK(100)):
        assert len(DDPMScheduler.from_config(scheduler.config)) == 100
    assert (
        diffusers.DDIMScheduler.from_config(DDPMScheduler(100).config).config.num_train_timesteps
        == 100
    )
    # Stock itself makes it 1000 timesteps.
    assert len(STOCK.from_config(STOCK(100).config)) == 1000


def test_a_new_calibration_takes_effect_at_once() -> None:
    scheduler = calibrated()
    before = noise_of(scheduler, 900)
    scheduler.set_timesteps(timesteps=[900, 300, 0])
    first = noise_of(scheduler, 900)
    scheduler.set_calibration(known("gaussian"))
    assert len({before, first, noise_of(scheduler, 900)}) == 3


# In a pipeline.


def made_for(unet: diffusers.UNet2DModel) -> DDPMScheduler:
    scheduler = DDPMScheduler(20)
    x_0 = [torch.randint(0, 256, (10, 1, 8, 8)) / 127.5 - 1]
    found = calibrate(unet, scheduler, x_0, num_forwards=20, generator=seeded())
    return scheduler.with_calibration(found, timestep_spacing="optimal")


def test_a_pipeline_keeps_its_calibration_through_stock(
    tiny_unet: MakeUNet, tmp_path: Path
) -> None:
    unet = tiny_unet()
    pipe = DDPMPipeline(unet, made_for(unet))
    pipe.set_progress_bar_config(disable=True)
    images = pipe(2, seeded(), 4, output_type="pt").images
    pipe.save_pretrained(tmp_path)
    stock = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    stock.set_progress_bar_config(disable=True)
    assert stock(1, num_inference_steps=2, output_type="np").images.shape == (1, 8, 8, 1)
    stock.save_pretrained(tmp_path / "stock")
    for precision in (torch.float32, torch.bfloat16):
        back = DDPMPipeline.from_pretrained(tmp_path / "stock", dtype=precision)
        back.set_progress_bar_config(disable=True)
        again = back(2, seeded(), 4, output_type="pt").images
        if precision is torch.float32:
            assert torch.equal(again, images)


def test_other_weights_are_refused_unless_told(tiny_unet: MakeUNet) -> None:
    unet = tiny_unet()
    scheduler = made_for(unet)
    message = "calibration was made for other weights"
    with pytest.raises(ValueError, match=message):
        DDPMPipeline(tiny_unet(seed=1), scheduler)
    pipe = DDPMPipeline(unet, DDPMScheduler(20))
    pipe.scheduler = scheduler  # as is usual with diffusers
    pipe.set_progress_bar_config(disable=True)
    pipe(1, num_inference_steps=2)
    with torch.no_grad():
        unet.conv_in.weight.add_(0.01)
    with pytest.raises(ValueError, match=message):
        pipe(1, num_inference_steps=2)
    with pytest.raises(ValueError, match=message):
        next(iter(pipe.progressive(1, num_inference_steps=2)))
    scheduler.set_calibration(scheduler.calibration.for_any_weights())
    pipe(1, num_inference_steps=2)


def test_a_calibration_that_is_not_used_may_be_of_any_weights(tiny_unet: MakeUNet) -> None:
    scheduler = made_for(tiny_unet())
    unused = DDPMScheduler.from_config(
        scheduler.config, variance_type="fixed_small", timestep_spacing="trailing"
    )
    assert unused.calibration is not None
    DDPMPipeline(tiny_unet(seed=1), unused)


def test_hashes_know_weights_in_other_precisions_and_wrappers(
    tiny_unet: MakeUNet, caplog: pytest.LogCaptureFixture
) -> None:
    unet = tiny_unet()
    scheduler = made_for(unet)
    assert weights_hashes(torch.compile(unet)) == weights_hashes(unet)
    scheduler.check_weights(tiny_unet().half())
    scheduler.check_weights(tiny_unet().bfloat16())
    assert not caplog.records
    scheduler.check_weights(tiny_unet().double())
    assert "cannot tell whether these, as float64" in caplog.text
