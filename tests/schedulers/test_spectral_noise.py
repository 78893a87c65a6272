"""Steps with one variance for each frequency: their noise, marginals and refusals."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import diffusers
import pytest
import torch
from helpers.calibrations import known
from helpers.coloured_noise import SHAPE, coloured_scheduler
from helpers.device_counts import DEVICE, DeviceCounts, stand_in_device
from torch.testing import assert_close

from ddpm_pipeline import DDPMScheduler
from ddpm_pipeline.diffusion import ErrorSpectrum


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("eta", [None, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("K", [2, 5])
def test_every_marginal_of_gaussian_data_is_drawn(eta: float | None, K: int) -> None:
    scheduler, data = coloured_scheduler(rescale_betas_zero_snr=True, mean=0.3)
    scheduler.set_timesteps(K)
    count, generator = 3000, seeded()
    x = torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
    for t in scheduler.timesteps[:-1]:
        x = scheduler.step(
            data(x, t.expand(count)), t, x, generator=generator, eta=eta
        ).prev_sample
    t = scheduler.timesteps[-1]
    found = data.basis.to_frequencies(x).var(0) / data.marginal_variance(t)
    # 162 estimates of 1, each with a standard error of 2.6 %.
    assert (found - 1).abs().max() < 0.12
    assert found.mean().item() == pytest.approx(1, abs=0.01)
    mean = data.mean * scheduler.schedule.alpha_bar(t).sqrt().item()
    assert x.mean().item() == pytest.approx(mean, abs=0.02)


@pytest.mark.parametrize("eta", [None, 0.5])
def test_the_noise_is_that_of_the_distribution_that_reverse_gives(eta: float | None) -> None:
    scheduler, data = coloured_scheduler()
    scheduler.set_timesteps(4)
    x, t = data.sample(2), scheduler.timesteps[1]
    output = data(x, t.expand(2))
    p = scheduler.reverse(output, t, x, eta=eta)
    drawn = scheduler.step(output, t, x, generator=seeded(), eta=eta).prev_sample
    noise = torch.randn(x.shape, generator=seeded(), dtype=torch.float64)
    assert_close(drawn, p.reparameterize(noise), rtol=0, atol=1e-12)
    mean = p.log_var.exp().mean()
    analytic, _ = coloured_scheduler(variance_type="analytic")
    analytic.set_timesteps(4)
    assert_close(analytic.reverse(output, t, x, eta=eta).var, mean, rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_timesteps_in_a_tensor_step_as_numbers_do(dtype: torch.dtype) -> None:
    scheduler, data = coloured_scheduler()
    scheduler.set_timesteps(5)
    x = data.sample(5).to(dtype)
    whole = [
        scheduler.step(x, int(t), x, generator=seeded()).prev_sample[i]
        for i, t in enumerate(scheduler.timesteps)
    ]
    together = scheduler.step(x, scheduler.timesteps, x, generator=seeded()).prev_sample
    assert together.dtype == dtype
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float64: 1e-12}[dtype]
    assert_close(together, torch.stack(whole), rtol=0, atol=tolerance)
    lone = scheduler.step(x, scheduler.timesteps[0], x, generator=seeded()).prev_sample
    assert_close(lone[0], whole[0], rtol=0, atol=0)


def test_one_generator_for_each_image_draws_each_alone() -> None:
    scheduler, data = coloured_scheduler()
    x = data.sample(2).float()
    generators = [torch.Generator().manual_seed(i) for i in (4, 5)]
    both = scheduler.step(x, 500, x, generator=generators).prev_sample
    for i in range(2):
        alone = scheduler.step(
            x[i : i + 1], 500, x[i : i + 1], generator=torch.Generator().manual_seed(4 + i)
        ).prev_sample
        assert_close(both[i : i + 1], alone, rtol=0, atol=1e-6)


def test_the_last_noise_is_capped_on_average_but_not_below_the_forward_posterior() -> None:
    full, _ = coloured_scheduler()
    small, _ = coloured_scheduler(levels=2.0)
    zeros = torch.zeros(2000, *SHAPE)
    for scheduler in (full, small):
        scheduler.set_timesteps(4)
    t = full.timesteps[-2]
    free, capped = (s.step(zeros, t, zeros, generator=seeded()).prev_sample for s in (full, small))
    cap = 2 * 2 / 255 * (torch.pi / 2) ** 0.5
    assert free.std() > 2 * cap
    floor = 1 - full.schedule.alpha(t, full.timesteps[-1])
    posterior = floor * full.schedule.one_minus_alpha_bar(full.timesteps[-1])
    posterior = (posterior / full.schedule.one_minus_alpha_bar(t)).sqrt()
    assert capped.std().item() == pytest.approx(max(cap, posterior.item()), rel=0.02)


def test_a_step_to_the_data_adds_no_noise() -> None:
    scheduler, data = coloured_scheduler()
    scheduler.set_timesteps(3)
    x, t = data.sample(2), scheduler.timesteps[-1]
    assert torch.equal(scheduler.step(x, t, x).prev_sample, scheduler.step(x, t, x).prev_sample)


def test_a_saved_scheduler_comes_back_and_stock_takes_the_nearest(tmp_path: Path) -> None:
    scheduler, data = coloured_scheduler()
    scheduler.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stock = diffusers.DDPMScheduler.from_pretrained(tmp_path)
    assert stock.config.variance_type == "fixed_small"
    stock.save_pretrained(tmp_path / "again")
    x = data.sample(1).float()
    expected = scheduler.step(x, 500, x, generator=seeded()).prev_sample
    for folder in (tmp_path, tmp_path / "again"):
        loaded = DDPMScheduler.from_pretrained(folder)
        assert loaded.variance_type == "spectral"
        assert torch.equal(loaded.step(x, 500, x, generator=seeded()).prev_sample, expected)
    text = (tmp_path / "scheduler_config.json").read_text(encoding="utf-8")
    assert "spectrum" in json.loads(text)["_ddpm_pipeline"]["calibration"]


def test_images_of_another_shape_are_refused() -> None:
    scheduler, _ = coloured_scheduler()
    for shape in ((2, 3, 9, 9), (2, 1, 6, 9)):
        x = torch.zeros(shape)
        with pytest.raises(ValueError, match=r"spectrum is that of images of shape \(3, 6, 9\)"):
            scheduler.step(x, 500, x)


def test_what_needs_a_spectrum_is_refused_without() -> None:
    x = torch.zeros(2, *SHAPE)
    scheduler = DDPMScheduler(variance_type="spectral")
    with pytest.raises(ValueError, match="variance_type 'spectral' needs a calibration, got None"):
        scheduler.step(x, 500, x)
    message = "variance_type 'spectral' needs a calibration with a spectrum"
    with pytest.raises(ValueError, match=message):
        scheduler.set_calibration(known())
    assert scheduler.calibration is None
    with pytest.raises(ValueError, match=message):
        DDPMScheduler().with_calibration(known(), variance_type="spectral")
    learned = torch.zeros(2, 6, 6, 9)
    scheduler, _ = coloured_scheduler()
    with pytest.raises(ValueError, match="must have 3 channels for variance_type 'spectral'"):
        scheduler.step(learned, 500, x)


def test_a_chain_computes_the_spectrum_of_its_own_steps_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over all T timesteps it takes seconds on images of some size."""
    scheduler, _ = coloured_scheduler()
    scheduler.set_timesteps(5)
    x, seen, at = torch.zeros(1, *SHAPE), [], ErrorSpectrum.at
    scheduler.step(x, scheduler.timesteps[0], x)  # tabulates the spectrum, for all chains
    monkeypatch.setattr(ErrorSpectrum, "at", lambda self, t: seen.extend(t) or at(self, t))
    scheduler.set_timesteps(4)
    for t in scheduler.timesteps:
        scheduler.step(x, t, x)
    assert seen == list(scheduler.timesteps[:-1])  # the step to the data draws nothing


def test_a_calibration_without_a_spectrum_is_replaced_by_one_with_it() -> None:
    scheduler, data = coloured_scheduler(variance_type="fixed_small")
    scheduler.set_calibration(known())
    replaced = scheduler.with_calibration(data.calibration(), variance_type="spectral")
    assert replaced.has_spectrum
    assert not scheduler.has_spectrum


def test_a_timestep_for_each_image_is_sent_behind_the_host() -> None:
    for variance_type in ("spectral", "fixed_small"):
        scheduler, _ = coloured_scheduler(variance_type=variance_type)
        x, t = torch.zeros(2, *SHAPE, device=DEVICE), torch.tensor([999, 500])
        with stand_in_device(), DeviceCounts() as counts:
            scheduler.step(x, t, x)
        assert (counts.waits, counts.unpinned) == ([], [])


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "spectral"])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_no_step_waits_for_the_device(solver: str, as_tensor: bool) -> None:
    scheduler, _ = coloured_scheduler()
    scheduler.set_timesteps(4, device=DEVICE if as_tensor else None)
    scheduler.set_solver(solver)
    x = torch.zeros(2, *SHAPE, device=DEVICE)
    with stand_in_device(), DeviceCounts() as counts:
        for t in scheduler.timesteps:
            x = scheduler.step(x, t, x).prev_sample
    assert x.device == DEVICE
    assert (counts.waits, counts.unpinned) == ([], [])
    with stand_in_device(), DeviceCounts() as counts:
        again = x
        for t in scheduler.timesteps:
            again = scheduler.step(again, t, again).prev_sample
    assert not counts.pinned  # all that a chain needs is there after the first walk
