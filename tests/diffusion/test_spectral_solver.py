"""Steps that are exact for Gaussian data, and what they are without a spectrum."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from helpers.oracles import linear_betas, mixture
from torch import Tensor
from torch.testing import assert_close

from ddpm_pipeline.diffusion.dct import FrequencyBasis
from ddpm_pipeline.diffusion.ddim import ddim_coefficients
from ddpm_pipeline.diffusion.multistep import multistep_moves
from ddpm_pipeline.diffusion.schedule import NoiseSchedule
from ddpm_pipeline.diffusion.spacing import spaced_timesteps
from ddpm_pipeline.diffusion.spectral import ErrorSpectrum
from ddpm_pipeline.diffusion.spectral_solver import local_variances, spectral_step

LINEAR = NoiseSchedule.linear(1000)
ZERO_SNR = NoiseSchedule.cosine(1000).zero_terminal_snr()
VARIANCE = torch.tensor([1e-6, 1e-3, 0.1, 1.0, 30.0], dtype=torch.float64)
MEAN = 0.7

Network = Callable[[Tensor, int], Tensor]


def marginal(schedule: NoiseSchedule, t: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of Gaussian data at t."""
    signal = schedule.alpha_bar(t)
    variance = VARIANCE * signal + schedule.one_minus_alpha_bar(t)
    return MEAN * signal.sqrt(), variance.sqrt()


def gaussian_network(schedule: NoiseSchedule) -> Network:
    def predict(x: Tensor, t: int) -> Tensor:
        mean, std = marginal(schedule, t)
        return MEAN + VARIANCE * schedule.alpha_bar(t).sqrt() / std.square() * (x - mean)

    return predict


def walk(
    schedule: NoiseSchedule,
    network: Network,
    x: Tensor,
    timesteps: list[int],
    variance: Tensor,
    order: int,
) -> Tensor:
    """Go from the first timestep to the last, which may be -1."""
    last: tuple[int, Tensor, Tensor] | None = None
    for t, s in pairwise(timesteps):
        x_0 = network(x, t)
        step = spectral_step(schedule, t, s, variance, last[0] if last else None)
        x_s = step.from_x_t * x + step.from_x_0 * x_0
        if last is not None:
            x_s = x_s + step.from_last_x_t * last[1] + step.from_last_x_0 * last[2]
        last = (t, x, x_0) if order == 2 else None
        x = x_s
    return x


@pytest.mark.parametrize("schedule", [LINEAR, ZERO_SNR])
@pytest.mark.parametrize("K", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("order", [1, 2])
def test_gaussian_data_of_any_variance_are_reached_exactly(
    schedule: NoiseSchedule, K: int, order: int
) -> None:
    chain = [*spaced_timesteps(1000, K, "trailing").tolist(), -1]
    for deviations in (-1.5, 0.0, 1.0):
        mean, std = marginal(schedule, 999)
        x = walk(
            schedule, gaussian_network(schedule), mean + deviations * std, chain, VARIANCE, order
        )
        assert_close(x, MEAN + deviations * VARIANCE.sqrt(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("t", "s"), [(999, 500), (500, 499), (300, -1)])
def test_without_variance_a_step_is_ddims(t: int, s: int) -> None:
    step = spectral_step(LINEAR, t, s, torch.full((1,), 1e-14, dtype=torch.float64))
    move = ddim_coefficients(
        LINEAR, torch.tensor([t]), torch.tensor([s]), eta=0.0, prediction_type="sample"
    )
    assert_close(step.from_x_0, move.mean_from_x_0, rtol=1e-9, atol=1e-6)
    assert_close(step.from_x_t, move.mean_from_x_t, rtol=1e-9, atol=1e-6)


def test_without_variance_order_2_is_dpm_solver() -> None:
    chain = [999, 700, 400, 100]
    exact = multistep_moves(LINEAR, chain, order=2, corrector=False, kind="bh2")[1]
    step = spectral_step(LINEAR, 700, 400, torch.full((1,), 1e-12, dtype=torch.float64), 999)
    assert_close(step.from_x_t.item(), float(exact.from_x_t), rtol=1e-6, atol=0)
    # DPM-Solver++ 2M has these for B = h; its multistep kind bh2 has them too.
    found = [step.from_x_0.item(), step.from_last_x_0.item()]
    assert found == pytest.approx([float(weight) for weight in exact.from_x_0], rel=1e-6)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("variance", [1e-9, 0.05, 0.5])
def test_order_of_convergence_on_a_mixture(order: int, variance: float) -> None:
    schedule = NoiseSchedule.linear(1000)
    denoiser = mixture((-0.6, 0.6), 0.3).denoiser(linear_betas(), "sample")

    def network(x: Tensor, t: int) -> Tensor:
        return denoiser(x[:, None], torch.full((len(x),), t))[:, 0]

    x = torch.tensor([-1.3, -0.2, 0.4, 1.1], dtype=torch.float64)
    fixed = torch.tensor(variance, dtype=torch.float64)

    def end(stride: int) -> Tensor:
        return walk(schedule, network, x, list(range(960, 239, -stride)), fixed, order)

    fine = walk(schedule, network, x, list(range(960, 239, -1)), fixed, 2)
    coarse, half = ((end(stride) - fine).abs().mean() for stride in (48, 24))
    rate = torch.log2(coarse / half).item()
    assert order - 0.35 < rate < order + 0.8


def test_the_local_variance_explains_the_error() -> None:
    generator = torch.Generator().manual_seed(0)
    ratios = torch.rand(1000, 1, 3, 4, generator=generator, dtype=torch.float64) + 0.1
    data = torch.rand(1, 3, 4, generator=generator, dtype=torch.float64) + 0.01
    basis = FrequencyBasis(torch.ones(1, 1, dtype=torch.float64), (3, 4))
    bands = (torch.arange(3), torch.arange(4))
    spectrum = ErrorSpectrum(basis, data, ratios, bands, LINEAR.snr(torch.arange(1000)))
    t = torch.tensor([5, 300, 999])
    local = local_variances(spectrum, t)
    snr = LINEAR.snr(t).reshape(3, 1, 1, 1)
    assert_close(local / (1 + local * snr), torch.minimum(spectrum.at(t), spectrum.limit(t)))
    assert (local <= data * (1 + 1e-12)).all()
    assert (local > 0).all()


@pytest.mark.parametrize(("t", "s"), [(999, 700), (700, 300), (300, 50)])
def test_a_step_keeps_the_second_moment_of_any_data(t: int, s: int) -> None:
    """Of a mixture, by the trapezoidal rule, for the error of the best network."""
    data, x = mixture((-0.9, 0.5), 0.1), torch.linspace(-8, 8, 40_001, dtype=torch.float64)
    signal, noise = LINEAR.alpha_bar(t), LINEAR.one_minus_alpha_bar(t)
    means = signal.sqrt() * torch.tensor(data.means, dtype=torch.float64)[:, None]
    variance = signal * data.stds[0] ** 2 + noise
    density = (-(x - means).square() / (2 * variance)).exp() / (2 * torch.pi * variance).sqrt()
    density = density.mean(0)
    x_0 = data.denoiser(linear_betas(), "sample")(x[:, None], torch.full((len(x),), t))[:, 0]

    def mean(values: Tensor) -> Tensor:
        return torch.trapezoid(values * density, x)

    second_moment = sum(m**2 + std**2 for m, std in zip(data.means, data.stds, strict=True)) / 2
    error = second_moment - mean(x_0.square())
    local = error / (1 - error * LINEAR.snr(t))
    step = spectral_step(LINEAR, t, s, local)
    found = mean((step.from_x_t * x + step.from_x_0 * x_0).square())
    expected = LINEAR.alpha_bar(s) * second_moment + LINEAR.one_minus_alpha_bar(s)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
