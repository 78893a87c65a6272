"""The bound of models that are known exactly, and what the function does with everything else."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import diffusers
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from helpers.calibrations import calibration_from_errors
from helpers.coloured_noise import coloured_scheduler
from helpers.oracles import Mixture, gaussian, linear_betas, mixture
from helpers.paths import DOCS
from helpers.processes import exit_codes, fork_ranks
from torch.distributions import Normal
from torch.utils.data import DataLoader, TensorDataset

from ddpm_pipeline import BoundReport, DDPMScheduler, variational_bound
from ddpm_pipeline.diffusion.spacing import spaced_timesteps
from ddpm_pipeline.likelihood.config import BOUND_SAMPLERS
from ddpm_pipeline.schedulers.optimal import chain_bits_per_dim

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

BETAS = linear_betas()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bound(
    data: Mixture, x_0: object, prediction_type: str = "epsilon", **options: object
) -> BoundReport:
    """The bound of the exact denoiser, with a continuous decoder and seed 0 unless given."""
    variance_type = options.pop("variance_type", "fixed_large")
    scheduler = full_scheduler(variance_type, prediction_type)
    model = data.denoiser(BETAS, prediction_type)
    defaults = {"decoder": "continuous", "generator": seeded()}
    return variational_bound(model, scheduler, x_0, **{**defaults, **options})


@cache
def full_scheduler(variance_type: str, prediction_type: str) -> DDPMScheduler:
    return DDPMScheduler(variance_type=variance_type, prediction_type=prediction_type)


def linspace(K: int) -> Tensor:
    return spaced_timesteps(1000, K, "linspace")


def images(count: int, channels: int = 1, size: int = 8, seed: int = 0) -> Tensor:
    """Noise of 256 levels in [-1, 1]."""
    shape = (count, channels, size, size)
    return torch.randint(0, 256, shape, generator=seeded(seed)) * 2 / 255 - 1


def small_scheduler(T: int = 12, **options: object) -> DDPMScheduler:
    return DDPMScheduler(T, beta_end=0.3, **options)


def toy(x_t: Tensor, t: Tensor) -> Tensor:
    """A network of no merit."""
    return 0.5 * x_t + 0.01 * t.reshape(-1, *[1] * (x_t.ndim - 1))


# Closed forms


def test_standard_normal_data_have_a_tight_bound_under_a_schedule_shifted_by_the_side() -> None:
    # ½ ln(2πe) nats for every schedule and spacing, with variance beta.
    data = gaussian(0, 1)
    shifted = DDPMScheduler(variance_type="fixed_large").for_resolution(64, 32)
    model = data.denoiser(shifted.config.trained_betas, "epsilon")
    options = {"decoder": "continuous", "generator": seeded(), "timesteps": linspace(10)}
    report = variational_bound(model, shifted, data.sample((20_000, 1), seeded(1)), **options)
    gap = report.bits_per_dim - math.log2(2 * math.pi * math.e) / 2
    assert abs(gap) < 4 * report.standard_error
    assert report.standard_error < 0.02
    # KL(N(x √a, 1 - a) || N(0, 1)) = (a x² - a - ln(1 - a))/2, where x² is 1 in the mean, and
    # a quarter of the plain schedule's 4.04e-5 is left.
    assert report.prior == pytest.approx(-math.log1p(-4.0358e-5 / 4) / 2 / math.log(2), rel=0.04)


@pytest.mark.parametrize("shape", [(20_000, 1), (20_000, 1, 1, 1), (200, 1, 10, 10)])
@pytest.mark.parametrize(
    ("variance_type", "bits"), [("fixed_large", 0.1475), ("fixed_small", 656)]
)
def test_gaussian_data(shape: tuple[int, ...], variance_type: str, bits: float) -> None:
    data = gaussian(0, 0.5)
    x_0 = data.sample(shape, seeded(1))
    report = bound(data, x_0, timesteps=linspace(10), variance_type=variance_type)
    gap = report.bits_per_dim - data.entropy / math.log(2)
    assert abs(gap - bits) < 4 * report.standard_error
    assert report.standard_error < 0.02 * bits + 0.02


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(("K", "bits"), [(10, 1.4632), (50, 0.4693)])
def test_mixture_data(prediction_type: str, K: int, bits: float) -> None:
    data = mixture()
    x_0 = data.sample((100, 1, 10, 20), seeded(1))
    report = bound(data, x_0, prediction_type, timesteps=linspace(K))
    assert abs(report.bits_per_dim - data.entropy / math.log(2) - bits) < 4 * report.standard_error
    assert report.standard_error < 0.02


@pytest.mark.parametrize("K", [1, 10, 1000])
def test_standard_normal_data_have_a_tight_bound(K: int) -> None:
    report = bound(gaussian(), gaussian().sample((40, 100), seeded(1)), timesteps=linspace(K))
    entropy = Normal(0.0, 1.0).entropy().item() / math.log(2)
    assert abs(report.bits_per_dim - entropy) < 4 * report.standard_error
    assert report.standard_error < 0.05


def test_the_rate_of_a_report_lies_on_shannons_curve() -> None:
    x_0 = gaussian().sample((200, 100), seeded(1))
    report = bound(gaussian(), x_0, timesteps=linspace(20))
    snr = report_snr(report)
    np.testing.assert_allclose(report.rate, 0.5 * np.log2(1 + snr), rtol=0.02, atol=1e-3)
    # The error of the best estimate of N(0, 1) data is 1 / (1 + SNR), here in units of 0 … 255.
    np.testing.assert_allclose(report.distortion, 127.5 / np.sqrt(1 + snr), rtol=0.02)


def report_snr(report: BoundReport) -> np.ndarray:
    return DDPMScheduler().schedule.snr(torch.tensor(report.chain)).numpy()


LEVEL = 2 * 140 / 255 - 1
TINY_BETAS = [0.1, 0.3, 0.6]


def tiny_network(x_t: Tensor, t: Tensor) -> Tensor:
    """A nonlinear noise prediction, and a share between the two logarithms of the variance."""
    shift = t.reshape(-1, *[1] * (x_t.ndim - 1))
    return torch.cat([0.6 * x_t + 0.3 * torch.sin(x_t + shift), 0.4 * torch.cos(x_t) - 1], dim=1)


def integrated_bound(decoder: str) -> float:
    """E log q(x_1..x_3 | x_0) - log p(x_0..x_3) for tiny_network, over a grid of trajectories.

    Every density is the one-step form of the papers: no posterior, no closed form of q(x_t | x_0).
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    z, weight = torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
    noise = torch.cartesian_prod(z, z, z).unbind(1)
    path, log_ratio = [torch.full_like(noise[0], LEVEL)], torch.zeros_like(noise[0])
    for beta, eps in zip(TINY_BETAS, noise, strict=True):
        step = Normal(math.sqrt(1 - beta) * path[-1], math.sqrt(beta))
        path.append(step.mean + step.stddev * eps)
        log_ratio += step.log_prob(path[-1])
    kept = np.cumprod(1 - np.array(TINY_BETAS))
    log_ratio -= Normal(0.0, 1.0).log_prob(path[3])
    for t in (2, 1, 0):
        beta, x_t = TINY_BETAS[t], path[t + 1]
        output, share = tiny_network(x_t[:, None], torch.tensor([t])).unbind(1)
        mean = (x_t - beta / math.sqrt(1 - kept[t]) * output) / math.sqrt(1 - beta)
        i = max(t, 1)  # where there is no posterior variance, that of the step before
        small = TINY_BETAS[i] * (1 - kept[i - 1]) / (1 - kept[i])
        u = (share + 1) / 2
        p = Normal(mean, (0.5 * (u * math.log(beta) + (1 - u) * math.log(small))).exp())
        if t > 0 or decoder == "continuous":
            log_ratio -= p.log_prob(path[t])
        else:
            log_ratio -= log_mass(p, path[0])
    joint = torch.cartesian_prod(weight, weight, weight).prod(1)
    return (joint * log_ratio).sum().item()


def log_mass(p: Normal, x: Tensor) -> Tensor:
    """log of the integral of the density over the bin around x, also far out in its tails."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    places = x[:, None] + torch.from_numpy(nodes) / 255
    logs = Normal(p.mean[:, None], p.stddev[:, None]).log_prob(places)
    return torch.logsumexp(logs + torch.from_numpy(np.log(weights / 255)), dim=1)


@pytest.mark.parametrize("decoder", ["discretized", "continuous"])
def test_a_bound_that_is_integrated_over_all_trajectories(decoder: str) -> None:
    scheduler = DDPMScheduler(3, trained_betas=TINY_BETAS, variance_type="learned_range")
    x_0 = torch.full((100_000, 1, 1, 1), LEVEL, dtype=torch.float64)
    report = variational_bound(tiny_network, scheduler, x_0, decoder=decoder, generator=seeded())
    assert abs(report.nats - integrated_bound(decoder)) < 4 * report.standard_error * math.log(2)
    assert report.standard_error < 0.02


# The estimate


@pytest.mark.parametrize("timestep_sampler", BOUND_SAMPLERS)
def test_an_estimate_agrees_with_the_exact_sum_within_its_error(timestep_sampler: str) -> None:
    data = mixture((-0.7, 0.1, 0.5), 0.05)
    x_0 = data.sample((50, 1, 4, 4), seeded(1))
    errors, stated = [], []
    for seed in range(20):
        options = {"generator": seeded(seed), "timesteps": linspace(60)}
        exact = bound(data, x_0, **options)
        options["generator"] = seeded(seed)
        estimate = bound(
            data, x_0, num_timestep_samples=5, timestep_sampler=timestep_sampler, **options
        )
        assert estimate.forwards == 50 * 6
        assert exact.forwards == 50 * 60
        assert exact.standard_error_timesteps == 0
        assert estimate.decoder == pytest.approx(exact.decoder)  # it is never estimated
        errors.append(estimate.bits_per_dim - exact.bits_per_dim)
        stated.append(estimate.standard_error_timesteps)
    errors, stated = np.array(errors), np.array(stated)
    assert abs(errors.mean()) < 4 * errors.std() / len(errors) ** 0.5
    # A stated error may be too large, since examples share their timesteps out; never too small.
    assert 0.1 < np.sqrt((errors**2).mean() / (stated**2).mean()) < 1.5


def test_many_estimates_of_one_image_average_to_its_exact_sum() -> None:
    data = gaussian(0, 0.5)
    x_0 = torch.full((1, 4), 0.3, dtype=torch.float64)
    options = {"timesteps": linspace(12), "decoder_variance": 1e-4}
    exact = bound(data, x_0.repeat(20_000, 1), **options)
    options |= {"num_timestep_samples": 2}
    for sampler in BOUND_SAMPLERS:
        estimates = torch.cat(
            [
                bound(
                    data, x_0, timestep_sampler=sampler, generator=seeded(seed), **options
                ).per_example
                for seed in range(120)
            ]
        )
        error = math.hypot(estimates.std().item() / 120**0.5, exact.standard_error)
        assert abs(estimates.mean().item() - exact.bits_per_dim) < 4 * error


def test_as_many_samples_as_transitions_are_the_exact_sum() -> None:
    x_0 = gaussian(0, 0.5).sample((6, 3), seeded(1))
    exact = bound(gaussian(0, 0.5), x_0, timesteps=linspace(9))
    for n in (8, 100):
        every = bound(gaussian(0, 0.5), x_0, timesteps=linspace(9), num_timestep_samples=n)
        assert torch.equal(every.per_example, exact.per_example)
        assert every.standard_error_timesteps == 0


# What the number does not depend on


def test_the_prediction_type_does_not_matter() -> None:
    data = mixture()
    x_0 = data.sample((9, 1, 2, 2), seeded(1))
    reports = [bound(data, x_0, p, timesteps=linspace(7)) for p in ("epsilon", "sample")]
    reports.append(bound(data, x_0, "v_prediction", timesteps=linspace(7)))
    for other in reports[1:]:
        torch.testing.assert_close(other.per_example, reports[0].per_example)


@pytest.mark.parametrize("num_timestep_samples", [None, 3])
def test_neither_batches_nor_other_images_matter(
    num_timestep_samples: int | None, tiny_unet: Callable
) -> None:
    unet, x_0 = tiny_unet(), images(7)
    scheduler = small_scheduler(8)

    def run(data: object, batch_size: int | None = None) -> BoundReport:
        return variational_bound(
            unet,
            scheduler,
            data,
            batch_size=batch_size,
            num_timestep_samples=num_timestep_samples,
            generator=seeded(),
        )

    report = run(x_0)
    loader = DataLoader(TensorDataset(x_0), batch_size=3)
    for other in (
        run(x_0, 1),
        run(x_0, 5),
        run(list(x_0.split(4))),
        run(iter(x_0.split(1)), 7),
        run(loader, 2),
    ):
        torch.testing.assert_close(other.per_example, report.per_example, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(other.transitions, report.transitions, rtol=1e-5, atol=1e-6)
        assert other.forwards == report.forwards
        for name in ("standard_error", "standard_error_timesteps", "bits_per_dim"):
            assert getattr(other, name) == pytest.approx(getattr(report, name), rel=1e-5)
    first = run(x_0[:4])
    torch.testing.assert_close(first.per_example, report.per_example[:4], rtol=1e-5, atol=1e-6)


def test_a_shorter_chain_sees_the_same_noise() -> None:
    seen = {}

    def record(name: str) -> Callable:
        def model(x_t: Tensor, t: Tensor) -> Tensor:
            assert t.dtype == torch.int64
            assert t.shape == (len(x_t),)
            seen.setdefault(name, {}).update(zip(t.tolist(), x_t, strict=True))
            return torch.zeros_like(x_t)

        return model

    for name, chain in (("full", None), ("short", [11, 4, 2])):
        options = {"timesteps": chain, "generator": seeded()}
        variational_bound(record(name), small_scheduler(), images(1), **options)
    assert set(seen["short"]) == {11, 4, 2}
    for t, x_t in seen["short"].items():
        torch.testing.assert_close(x_t, seen["full"][t])


def test_the_generator_decides_the_noise_and_torchs_own_is_used_without_one() -> None:
    def run(generator: torch.Generator | None) -> float:
        options = {"generator": generator}
        return variational_bound(toy, small_scheduler(), images(3), **options).bits_per_dim

    assert run(seeded(1)) == run(seeded(1)) != run(seeded(2))
    torch.manual_seed(3)
    first = run(None)
    assert run(None) != first
    torch.manual_seed(3)
    assert run(None) == first


def test_a_stock_scheduler_gives_the_same_report(tiny_unet: Callable) -> None:
    unet, x_0 = tiny_unet(3), images(4, 3)
    stock = diffusers.DDPMScheduler(12, variance_type="fixed_large", clip_sample=True)
    ours = DDPMScheduler.from_config(stock.config)
    ddim = diffusers.DDIMScheduler.from_config(stock.config)
    report = variational_bound(unet, ours, x_0, generator=seeded())
    assert torch.equal(
        variational_bound(unet, stock, x_0, generator=seeded()).per_example, report.per_example
    )
    again = variational_bound(unet, ddim, x_0, generator=seeded(), eta=1)
    assert again.settings.variance_type == "fixed_small"


# Variances, clamping and labels


def test_learned_variances_at_the_ends_of_their_range_are_the_fixed_ones() -> None:
    def with_variance(value: float) -> Callable:
        def model(x_t: Tensor, t: Tensor) -> Tensor:
            return torch.cat([toy(x_t, t), torch.full_like(x_t, value)], dim=1)

        return model

    def run(model: Callable, variance_type: str) -> BoundReport:
        scheduler = small_scheduler(variance_type=variance_type)
        return variational_bound(model, scheduler, images(3), generator=seeded())

    for value, fixed in ((1.0, "fixed_large"), (-1.0, "fixed_small")):
        learned, other = run(with_variance(value), "learned_range"), run(toy, fixed)
        torch.testing.assert_close(learned.per_example, other.per_example)
    small = run(with_variance(-7.0), "learned")
    assert small.settings.variance_type == "learned"
    assert small.bits_per_dim != learned.bits_per_dim


def test_the_analytic_variance_is_tight_on_gaussian_data_at_ten_steps() -> None:
    data = gaussian(0, 0.5)
    alpha_bar, one_minus = data.denoiser(BETAS).tables
    x_0_variance = 0.25 * one_minus / (0.25 * alpha_bar + one_minus)
    x_0 = data.sample((200, 100), seeded(1))
    scheduler = DDPMScheduler(variance_type="analytic")
    report = variational_bound(
        data.denoiser(BETAS),
        scheduler,
        x_0,
        timesteps=linspace(10),
        decoder="continuous",
        x_0_variance=x_0_variance,
        generator=seeded(),
    )
    assert abs(report.bits_per_dim - data.entropy / math.log(2)) < 4 * report.standard_error
    assert report.standard_error < 0.02
    assert report.last_variance is None
    calibration = calibration_from_errors(scheduler.schedule, x_0_variance)
    calibrated = DDPMScheduler().with_calibration(calibration)
    options = {"timesteps": linspace(10), "decoder": "continuous", "generator": seeded()}
    again = variational_bound(data.denoiser(BETAS), calibrated, x_0, **options)
    assert torch.equal(again.per_example, report.per_example)


def test_the_best_variance_of_the_last_move_is_the_best_of_all_numbers() -> None:
    data = gaussian(0.1, 0.5)
    x_0 = data.sample((30, 5), seeded(1))
    best = bound(data, x_0, timesteps=[900, 300])
    assert best.settings.decoder_variance == "best"
    for factor in (0.9, 1.0, 1.1):
        variance = factor * best.last_variance
        other = bound(data, x_0, timesteps=[900, 300], decoder_variance=variance)
        assert other.decoder >= best.decoder - 1e-12
        if factor == 1:
            torch.testing.assert_close(other.per_example, best.per_example)
    model = bound(data, x_0, timesteps=[900, 300], decoder_variance="model")
    beta = 1 - model_alpha_bar(300)
    other = bound(data, x_0, timesteps=[900, 300], decoder_variance=beta)
    torch.testing.assert_close(other.per_example, model.per_example)


def test_the_last_small_variance_is_that_of_the_move_before_on_this_chain() -> None:
    x_0 = gaussian(0, 0.5).sample((8, 2), seeded(1))
    kept = {t: model_alpha_bar(t) for t in (900, 300)}
    before = (1 - kept[900] / kept[300]) * (1 - kept[300]) / (1 - kept[900])
    for chain, variance in (([900, 300], before), ([300], 1 - kept[300])):
        options = {"timesteps": chain, "variance_type": "fixed_small"}
        model = bound(gaussian(0, 0.5), x_0, decoder_variance="model", **options)
        other = bound(gaussian(0, 0.5), x_0, decoder_variance=float(variance), **options)
        torch.testing.assert_close(other.per_example, model.per_example)


def model_alpha_bar(t: int) -> float:
    return math.prod(1 - BETAS[: t + 1])


def test_clamping_happens_only_when_asked_and_is_stated() -> None:
    def far(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x_t, 3.0)

    def near(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.ones_like(x_t)

    scheduler = small_scheduler(prediction_type="sample", clip_sample=True)

    def run(model: Callable, clip_x_0: float | None) -> BoundReport:
        options = {"clip_x_0": clip_x_0, "generator": seeded()}
        return variational_bound(model, scheduler, images(3), **options)

    assert run(far, None).bits_per_dim > run(far, 1.0).bits_per_dim
    assert run(far, 1.0).bits_per_dim == run(near, None).bits_per_dim
    assert run(far, 1.0).settings.clip_x_0 == 1
    assert "clamped to ± 1" in str(run(far, 1.0))
    assert "not clamped" in str(run(far, None))


def test_labels_reach_a_conditional_model_with_their_images(tiny_unet: Callable) -> None:
    unet = tiny_unet(num_class_embeds=3)
    x_0, labels = images(7), torch.tensor([0, 1, 2, 0, 1, 2, 0])

    def run(data: object, **options: object) -> Tensor:
        scheduler = small_scheduler()
        options |= {"generator": seeded(), "batch_size": 5}
        return variational_bound(unet, scheduler, data, **options).per_example

    together = run(x_0, class_labels=labels)
    pairs = list(zip(x_0.split(2), labels.split(2), strict=True))
    torch.testing.assert_close(run(pairs), together, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(run(x_0, class_labels=labels.roll(1)), together)


def test_a_model_is_measured_in_evaluation_mode_and_left_as_it_was(tiny_unet: Callable) -> None:
    unet = tiny_unet(dropout=0.5).train()
    reports = [
        variational_bound(unet, small_scheduler(), images(2), generator=seeded()) for _ in "ab"
    ]
    assert reports[0].bits_per_dim == reports[1].bits_per_dim
    assert all(module.training for module in unet.modules())


# Long runs


def test_it_stops_as_soon_as_the_error_is_small_enough() -> None:
    x_0 = gaussian(0, 0.5).sample((2000, 2), seeded(1))
    options = {"timesteps": linspace(10), "batch_size": 100, "decoder_variance": "model"}
    whole = bound(gaussian(0, 0.5), x_0, **options)
    target = 2 * whole.standard_error
    report = bound(gaussian(0, 0.5), x_0, target_standard_error=target, **options)
    assert 0.9 * target < report.standard_error <= target
    assert 400 < report.num_images < 640  # a quarter of the images, for twice the error
    torch.testing.assert_close(report.per_example, whole.per_example[: report.num_images])
    unreached = bound(gaussian(0, 0.5), x_0, target_standard_error=1e-9, **options)
    assert unreached.num_images == 2000


class KilledError(Exception):
    """Stands for whatever kills a run."""


@pytest.mark.parametrize("as_tensor", [True, False])
def test_a_run_that_was_killed_continues(tmp_path: Path, as_tensor: bool) -> None:
    x_0, state_file = images(40), tmp_path / "bound.state"
    calls = []

    def dies(x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x_t))
        if len(calls) == 25:
            raise KilledError
        return toy(x_t, t)

    def run(model: Callable, **options: object) -> BoundReport:
        data = x_0 if as_tensor else x_0.split(9)
        options |= {"batch_size": 4, "num_timestep_samples": 3}
        return variational_bound(model, small_scheduler(), data, **options)

    torch.manual_seed(5)
    whole = run(toy)
    torch.manual_seed(5)
    with pytest.raises(KilledError):
        run(dies, state_file=state_file)
    assert state_file.exists()
    with pytest.raises(ValueError, match=r"seed = \d+, here it is \d+; delete the file"):
        run(toy, state_file=state_file, generator=seeded(99))
    options = {"num_timestep_samples": 3, "state_file": state_file}
    with pytest.raises(ValueError, match="first_image"):
        variational_bound(toy, small_scheduler(), -x_0, **options)
    calls.clear()
    calls += [0] * 100  # it does not die again
    report = run(dies, state_file=state_file)
    assert sum(calls) < 40 * 4
    assert torch.equal(report.per_example, whole.per_example)
    assert report.to_dict() == whole.to_dict()
    assert not list(tmp_path.iterdir())


def test_a_run_does_not_continue_with_other_variances(tmp_path: Path) -> None:
    x_0, state_file = images(40), tmp_path / "bound.state"
    scheduler, calls = small_scheduler(variance_type="analytic"), []
    v = 0.01 + 0.1 * torch.rand(len(scheduler), generator=seeded(), dtype=torch.float64)

    def dies(x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x_t))
        if len(calls) == 25:
            raise KilledError
        return toy(x_t, t)

    def run(model: Callable, v: Tensor) -> BoundReport:
        options = {"batch_size": 4, "num_timestep_samples": 3, "state_file": state_file}
        return variational_bound(model, scheduler, x_0, x_0_variance=v, **options)

    with pytest.raises(KilledError):
        run(dies, v)
    with pytest.raises(ValueError, match="mean log x_0_variance = "):
        run(toy, 1.1 * v)
    assert run(toy, v).num_images == 40


def test_two_processes_give_the_number_of_one(tmp_path: Path, tiny_unet: Callable) -> None:
    unet, x_0 = tiny_unet(), images(9)

    def run(accelerator: Accelerator | None, **options: object) -> BoundReport:
        options |= {"batch_size": 4, "num_timestep_samples": 3, "accelerator": accelerator}
        return variational_bound(unet, small_scheduler(), x_0, **options)

    def rank() -> None:
        accelerator = Accelerator(cpu=True)
        assert accelerator.num_processes == 2
        torch.manual_seed(7 + accelerator.process_index)  # the first one's counts
        report = run(accelerator, target_standard_error=1e-9, state_file=tmp_path / "state")
        torch.save(report.to_dict(), tmp_path / f"{accelerator.process_index}.pt")

    assert exit_codes(fork_ranks(rank, 2)) == [0, 0]
    torch.manual_seed(7)
    alone = run(None)
    reports = [torch.load(tmp_path / f"{i}.pt") for i in (0, 1)]
    assert reports[0] == reports[1]
    assert reports[0]["bits_per_dim"] == pytest.approx(alone.bits_per_dim, rel=1e-7)
    np.testing.assert_allclose(reports[0]["per_example"], alone.per_example, rtol=1e-5, atol=1e-6)
    assert reports[0]["forwards"] == alone.forwards


# Mistakes


def fails(match: str, model: Callable = toy, x_0: object = None, **options: object) -> None:
    scheduler = options.pop("scheduler", None) or small_scheduler()
    with pytest.raises((ValueError, TypeError), match=match):
        variational_bound(model, scheduler, images(3) if x_0 is None else x_0, **options)


def test_ddim_has_an_infinite_bound() -> None:
    fails("bound of DDIM's chain with eta = 0 is infinite", scheduler=diffusers.DDIMScheduler(12))
    fails("bound of DDIM's chain with eta = 0 is infinite", eta=0)
    for solver in ("ddim", "multistep"):
        scheduler = DDPMScheduler(12)
        scheduler.set_solver(solver)
        fails(f"bound of solver '{solver}' is infinite.* pass eta=1", scheduler=scheduler)
    scheduler.set_solver("multistep", eta=0.5)
    fails("bound of solver 'multistep' is not known: .* pass eta=1", scheduler=scheduler)
    fails("eta must be 1, DDPM's chain, got 0.5", eta=0.5)
    fails(
        "scheduler must be a DDPMScheduler, got PNDMScheduler", scheduler=diffusers.PNDMScheduler()
    )


def test_data_that_are_not_allowed() -> None:
    x_0 = images(5)
    x_0[3, 0, 2, 2] = 1.5
    fails(r"lie in \[-1, 1\] for a discretized decoder, got a value of magnitude 1.5 in image 3",
          x_0=x_0)  # fmt: skip
    fails("magnitude 1.5 in image 3", x_0=x_0.split(2))
    x_0[3, 0, 2, 2] = torch.nan
    fails("be finite, got a value of magnitude nan in image 3", x_0=x_0, decoder="continuous")
    fails("at least one image, got none", x_0=[])
    fails(r"at least one image, got \(0, 1, 8, 8\)", x_0=images(0))
    fails(r"shape \(N, C, \*\) with at least one image, got \(3,\)", x_0=torch.zeros(3))
    fails("floating point in .* got torch.uint8; for bytes", x_0=images(2).byte())
    fails("must be batches of tensors, or of pairs .*, got ndarray", x_0=[images(2).numpy()])
    fails("must be a tensor or batches of them, got int", x_0=3)
    fails(r"must hold images of shape \(1, 8, 8\), got \(1, 4, 4\)",
          x_0=[images(2), images(2, size=4)])  # fmt: skip
    fails(r"class_labels must have shape \(3,\)", class_labels=torch.zeros(2))
    fails("class_labels must be None", x_0=[images(2)], class_labels=torch.zeros(2))


def test_options_that_are_not_allowed() -> None:
    fails("timesteps must be in descending order", timesteps=[3, 5])
    fails(r"timesteps must lie in \[0, 11\], got 12", timesteps=range(12, -1, -1))
    fails("num_timestep_samples must be an integer of at least 1", num_timestep_samples=0)
    fails("timestep_sampler must be one of rate, low_discrepancy, uniform",
          timestep_sampler="best")  # fmt: skip
    fails("batch_size must be an integer of at least 1, got 0", batch_size=0)
    fails("clip_x_0 must be above 0 or None, got -1", clip_x_0=-1)
    fails("target_standard_error must be above 0 or None, got 0", target_standard_error=0)
    fails("decoder must be one of discretized, continuous", decoder="bits")
    fails("decoder_variance 'best' needs decoder 'continuous'", decoder_variance="best")
    fails("decoder_variance must be 'model', 'best' or a number", decoder_variance="large")
    fails("decoder_variance must be 'model', 'best' or a number", decoder_variance=-1.0)


def test_a_model_that_does_not_fit() -> None:
    learned = small_scheduler(variance_type="learned_range")
    fails("must have 2 channels for variance_type 'learned_range' and 1 image channels, got 1",
          scheduler=learned)  # fmt: skip
    fails("must return the shape of x_t", lambda x_t, _: x_t[:, :, :4])
    fails("must return a tensor or an object", lambda x_t, _: (x_t,))
    fails("needs x_0_variance", scheduler=small_scheduler(variance_type="analytic"))


@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "infinite")])
@pytest.mark.parametrize("place", [(4, 0), (2, 7)])
def test_an_output_that_is_not_finite_is_named(
    value: float, word: str, place: tuple[int, int]
) -> None:
    image, timestep = place
    x_0 = images(6)
    x_0[:, 0, 0, 0] = torch.arange(6) * 2 / 255 - 1

    def breaks(x_t: Tensor, t: Tensor) -> Tensor:
        # The noise is keyed by image and timestep: find the row by its x_t.
        output = toy(x_t, t)
        rows = (t == timestep) & torch.isin(x_t[:, 0, 0, 0], marks[image])
        return torch.where(rows.reshape(-1, 1, 1, 1), torch.full_like(output, value), output)

    marks = {i: seen_at(x_0[: i + 1], timestep)[-1:] for i in (image,)}
    expected = f"output is {word} for image {image} at timestep {timestep}"
    fails(expected, breaks, x_0, generator=seeded(), batch_size=4)


def seen_at(x_0: Tensor, timestep: int) -> Tensor:
    """The first element of every x_t at a timestep, for seed 0."""
    seen = []

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(x_t[t == timestep][:, 0, 0, 0])
        return toy(x_t, t)

    variational_bound(model, small_scheduler(), x_0, generator=seeded())
    return torch.cat(seen)


def test_data_off_the_grid_are_counted_and_explained() -> None:
    x_0 = images(5)
    x_0[1:3] *= 0.99
    with pytest.warns(UserWarning, match="2 of 5 images have values between the 256 levels"):
        report = variational_bound(toy, small_scheduler(), x_0)
    assert "not a code length" in report.warnings[0]
    x_0 = images(5)
    x_0[4, 0, 0, 0] += 0.05 * 2 / 255  # a twentieth of a level, in one value
    with pytest.warns(UserWarning, match="1 of 5 images"):
        variational_bound(toy, small_scheduler(), x_0.clamp(-1, 1))
    rounded = ((images(5) / 2 + 0.5).bfloat16().float() * 255).round() / 127.5 - 1
    assert variational_bound(toy, small_scheduler(), rounded).warnings == ()
    assert "warning: 2 of 5 images" in str(report)
    assert variational_bound(toy, small_scheduler(), x_0, decoder="continuous").warnings == ()
    with pytest.warns(UserWarning, match="not a bound"):
        variational_bound(toy, small_scheduler(), images(2), decoder="discretized_tanh")


def test_the_worked_example_of_the_page_prints_what_it_shows(
    capsys: pytest.CaptureFixture,
) -> None:
    page = (DOCS / "bound.md").read_text(encoding="utf-8")
    code, shown = re.search(r"```python\n(.+?)```\n\n```text\n(.+?)```", page, re.DOTALL).groups()
    exec(code, {})
    assert capsys.readouterr().out == shown


# One variance for each frequency.


def spectral_bounds(K: int, count: int = 400, **options: object) -> dict[str, BoundReport]:
    """Of coloured noise with the spectral and with the analytic variance."""
    reports = {}
    for variance_type in ("spectral", "analytic"):
        scheduler, data = coloured_scheduler(variance_type=variance_type)
        reports[variance_type] = variational_bound(
            data,
            scheduler,
            data.sample(count).float(),
            **{"timesteps": linspace(K), "decoder": "continuous", "generator": seeded()} | options,
        )
    return reports


@pytest.mark.parametrize("K", [1, 4, 25])
def test_the_spectral_variance_is_tight_on_coloured_noise(K: int) -> None:
    reports = spectral_bounds(K)
    scheduler, data = coloured_scheduler()
    spectral = reports["spectral"]
    assert abs(spectral.bits_per_dim - data.bits_per_dim) < 4 * spectral.standard_error
    assert spectral.standard_error < 0.02
    for name, report in reports.items():
        priced = chain_bits_per_dim(
            scheduler.calibration, scheduler.schedule, linspace(K), variance_type=name
        )
        assert abs(report.bits_per_dim - priced) < 4 * report.standard_error
    assert reports["analytic"].bits_per_dim > spectral.bits_per_dim + 0.05
    assert spectral.settings.variance_type == "spectral"
    assert spectral.last_variance is None


def test_the_decoder_of_8_bit_data_has_one_variance_for_all_pixels() -> None:
    scheduler, data = coloured_scheduler()
    found = replace(
        scheduler.calibration,
        decoder_variance=0.3 * scheduler.calibration.decoder_variance,
        decoder=torch.ones(7, 1000, dtype=torch.float64),
        decoder_cost=torch.ones(1000, dtype=torch.float64),
    )
    x_0 = ((data.sample(8).clamp(-1, 1) + 1) * 127.5).round().float() / 127.5 - 1
    reports = [
        variational_bound(
            data, scheduler.with_calibration(found, variance_type=name), x_0,
            timesteps=[500, 20], generator=seeded(),
        )
        for name in ("spectral", "analytic")
    ]  # fmt: skip
    decoders = [report.decoder_per_example for report in reports]
    assert torch.equal(*decoders)
    assert not torch.equal(*(report.transitions_per_example for report in reports))


def test_a_spectral_bound_goes_on_with_the_same_spectrum_only(tmp_path: Path) -> None:
    scheduler, data = coloured_scheduler()
    x_0, calls = data.sample(40).float(), []

    def dies(x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x_t))
        if len(calls) == 25:
            raise KilledError
        return data(x_t, t)

    def run(model: Callable, scheduler: DDPMScheduler) -> BoundReport:
        options = {"batch_size": 4, "num_timestep_samples": 3, "decoder": "continuous"}
        return variational_bound(
            model, scheduler, x_0, state_file=tmp_path / "bound.state", **options
        )

    whole = variational_bound(data, scheduler, x_0, num_timestep_samples=3, decoder="continuous",
                              batch_size=4, generator=seeded(9))  # fmt: skip
    with pytest.raises(KilledError):
        run(dies, scheduler)
    spectrum = scheduler.calibration.spectrum
    tilted = spectrum.log_ratio + torch.tensor([0.0, 0.0, 1.0]).double()[:, None, None]
    other = replace(scheduler.calibration, spectrum=replace(spectrum, log_ratio=tilted))
    with pytest.raises(ValueError, match="mean log spectrum = "):
        run(data, scheduler.with_calibration(other, variance_type="spectral"))
    assert run(data, scheduler).num_images == whole.num_images


def test_spectral_bounds_that_cannot_be_are_refused() -> None:
    scheduler, data = coloured_scheduler()
    x_0 = data.sample(2).float()
    with pytest.raises(ValueError, match="x_0_variance is for variance_type 'analytic', got one"):
        variational_bound(data, scheduler, x_0, x_0_variance=torch.ones(1000).double())
    with pytest.raises(ValueError, match=r"images of shape \(3, 6, 9\), got \(3, 6, 8\)"):
        variational_bound(data, scheduler, x_0[..., :8], decoder="continuous")
    without = DDPMScheduler(variance_type="spectral")
    with pytest.raises(ValueError, match="'spectral' needs a calibration, got None"):
        variational_bound(data, without, x_0, decoder="continuous")
    twice = x_0.repeat(1, 2, 1, 1)
    with pytest.raises(ValueError, match="must have 3 channels for variance_type 'spectral'"):
        variational_bound(lambda *_: twice, scheduler, x_0, decoder="continuous")
