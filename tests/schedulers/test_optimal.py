"""What a calibration says of chains, against the bound that forward passes measure."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from helpers.calibrations import calibration_from_errors
from helpers.exact_errors import denoising_errors
from helpers.oracles import Mixture, linear_betas, mixture
from torch import Tensor

from ddpm_pipeline import Calibration, DDPMScheduler, NoiseSchedule, calibrate, variational_bound
from ddpm_pipeline.diffusion.costs import wiener_error
from ddpm_pipeline.diffusion.spacing import check_chain, spaced_timesteps
from ddpm_pipeline.schedulers.optimal import chain_bits_per_dim, optimal_timesteps

T = 100
BETAS = {"beta_start": 0.001, "beta_end": 0.2}
EIGHT_BIT = Mixture((0.5, 0.3, 0.2), (-0.95, 0.0, 0.98), (0.05, 0.2, 0.05))
MODEL = EIGHT_BIT.denoiser(linear_betas(T, 0.001, 0.2))
LINEAR = NoiseSchedule.linear(1000)
LEVELS = NoiseSchedule.linear(T, 0.001, 0.2)


@lru_cache
def images() -> Tensor:
    x_0 = EIGHT_BIT.sample((3000, 1, 8, 8), torch.Generator().manual_seed(0))
    return ((x_0.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


@lru_cache
def calibration() -> Calibration:
    generator = torch.Generator().manual_seed(1)
    scheduler = DDPMScheduler(T, **BETAS)
    return calibrate(MODEL, scheduler, [images()], num_forwards=3000, generator=generator)


@lru_cache
def exact() -> Calibration:
    return calibration_from_errors(LINEAR, denoising_errors(mixture()), second_moment=0.37)


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
@pytest.mark.parametrize("variance_type", ["fixed_large", "fixed_small", "analytic"])
def test_a_chain_costs_what_the_bound_measures(variance_type: str, spacing: str) -> None:
    """8-bit data with many values on the outer levels; both see the last move's own variance."""
    scheduler = DDPMScheduler(T, **BETAS).with_calibration(
        calibration(), variance_type=variance_type
    )
    for K in (4, 20):
        chain = spaced_timesteps(T, K, spacing)
        found = chain_bits_per_dim(
            calibration(), scheduler.schedule, chain, variance_type=variance_type
        )
        report = variational_bound(
            MODEL,
            scheduler,
            images()[:100],
            timesteps=chain,
            generator=torch.Generator().manual_seed(2),
        )
        error = (report.standard_error**2 + calibration().standard_error ** 2) ** 0.5
        assert found == pytest.approx(report.bits_per_dim, abs=3 * error, rel=0.01)


def decoder_bits(t: int, variance: float | str) -> float:
    """Bits per dimension of the analytic move from t to the data, by forward passes."""
    report = variational_bound(
        MODEL,
        DDPMScheduler(T, **BETAS).with_calibration(calibration()),
        images()[:500],
        timesteps=[t],
        decoder_variance=variance,
        generator=torch.Generator().manual_seed(2),
    )
    return report.decoder


@pytest.mark.parametrize("t", [0, 3, 10, 30, 60])
def test_no_variance_of_the_decoder_is_better_for_8_bit_data(t: int) -> None:
    best = calibration().decoder_variance[t].item()
    assert best <= LEVELS.one_minus_alpha_bar(t)
    found = decoder_bits(t, best)
    assert decoder_bits(t, "model") == pytest.approx(found, rel=1e-6)
    for factor in (0.5, 0.7, 1.4, 2):
        assert decoder_bits(t, factor * best) > found
    # The outer levels, half of these data, do not mind a wide decoder.
    v = calibration().x_0_variance[t].item()
    assert found < decoder_bits(t, v) - (0.01 if t >= 10 else 0)


@pytest.mark.parametrize("eta", [None, 0.5])
def test_the_last_move_alone_has_the_variance_of_the_decoder(eta: float | None) -> None:
    scheduler = DDPMScheduler(T, **BETAS).with_calibration(calibration())
    scheduler.set_timesteps(timesteps=[99, 30, 10, 0])
    x_t = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    last = scheduler.reverse(x_t, 0, x_t, eta=eta).log_var.exp().item()
    assert last == pytest.approx(calibration().decoder_variance[0].item())
    assert scheduler.step(x_t, 0, x_t, eta=eta).prev_sample.equal(
        scheduler.reverse(x_t, 0, x_t, eta=eta).mean
    )
    before = replace(calibration(), decoder_variance=calibration().x_0_variance)
    other = scheduler.with_calibration(before)
    other.set_timesteps(timesteps=[99, 30, 10, 0])
    for t in (99, 30, 10):
        assert scheduler.reverse(x_t, t, x_t, eta=eta).log_var.equal(
            other.reverse(x_t, t, x_t, eta=eta).log_var
        )


def test_a_density_keeps_the_variance_of_x_0() -> None:
    scheduler = DDPMScheduler(T, **BETAS).with_calibration(calibration())
    options = {"timesteps": [50, 10], "decoder": "continuous"}
    bits = [
        variational_bound(
            MODEL,
            scheduler,
            images()[:50],
            generator=torch.Generator().manual_seed(2),
            **options,
            **more,
        ).bits_per_dim
        for more in ({}, {"decoder_variance": calibration().x_0_variance[10].item()})
    ]
    assert bits[0] == pytest.approx(bits[1], rel=1e-6)


@pytest.mark.parametrize(
    ("variance_type", "K", "even", "optimal"),
    [("fixed_large", 10, 1.4632, 0.2873), ("analytic", 50, 0.1567, 0.0230)],
)
def test_fact_6_from_a_calibration(
    variance_type: str, K: int, even: float, optimal: float
) -> None:
    chains = (
        spaced_timesteps(1000, K, "linspace"),
        optimal_timesteps(exact(), LINEAR, K, variance_type=variance_type),
    )
    bits = [chain_bits_per_dim(exact(), LINEAR, c, variance_type=variance_type) for c in chains]
    entropy = mixture().entropy / torch.tensor(2.0).log().item()
    assert [b - entropy for b in bits] == pytest.approx([even, optimal], abs=1e-4)


def test_fact_6_from_forward_passes_to_within_their_error() -> None:
    found = calibrate(
        mixture().denoiser(linear_betas()),
        DDPMScheduler(),
        [mixture().sample((10_000, 1, 8, 8), torch.Generator().manual_seed(0))],
        generator=torch.Generator().manual_seed(0),
        decoder="continuous",
    )
    entropy = mixture().entropy / torch.tensor(2.0).log().item()
    for K, even, optimal in [(10, 1.2859, 0.1203), (50, 0.1567, 0.0230)]:
        chain = optimal_timesteps(found, LINEAR, K)
        bits = chain_bits_per_dim(found, LINEAR, spaced_timesteps(1000, K, "linspace"))
        assert bits - entropy == pytest.approx(even, abs=3 * found.standard_error)
        bits = chain_bits_per_dim(found, LINEAR, chain)
        assert bits - entropy == pytest.approx(optimal, abs=3 * found.standard_error)
        # Chosen with estimated errors, priced with the true ones.
        assert chain_bits_per_dim(exact(), LINEAR, chain) - entropy < optimal + 0.015


def test_two_steps_from_zero_snr_halve_the_variance() -> None:
    """The loss is the same through any timestep, to first order."""
    schedule = NoiseSchedule.cosine(200).zero_terminal_snr()
    error = wiener_error(schedule, torch.logspace(-3, 2, 20, dtype=torch.float64))
    known = calibration_from_errors(schedule, error, wiener_error=error)
    _, s = optimal_timesteps(known, schedule, 2, objective="samples").tolist()
    assert abs(s - (error - error.max() / 2).abs().argmin()) <= 1


@pytest.mark.parametrize("objective", ["likelihood", "samples"])
def test_every_k_gives_a_chain(objective: str) -> None:
    for K in (1, 2, 10, 99, T):
        schedule = DDPMScheduler(T, **BETAS).schedule
        chain = optimal_timesteps(calibration(), schedule, K, objective=objective)
        assert len(check_chain(chain, T)) == K
        assert chain[0] == T - 1


@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large", "analytic"])
def test_no_even_chain_of_8_bit_data_is_cheaper_than_the_optimal_one(variance_type: str) -> None:
    schedule = DDPMScheduler(T, **BETAS).schedule
    for K in (1, 2, 5, 20, 60):
        chains = [spaced_timesteps(T, K, name) for name in ("linspace", "trailing", "quadratic")]
        chains.append(optimal_timesteps(calibration(), schedule, K, variance_type="analytic"))
        best = optimal_timesteps(calibration(), schedule, K, variance_type=variance_type)
        bits = [
            chain_bits_per_dim(calibration(), schedule, chain, variance_type=variance_type)
            for chain in (best, *chains)
        ]
        assert bits[0] <= min(bits) + 1e-9


def test_more_steps_never_cost_more_with_the_best_chain() -> None:
    chains = [optimal_timesteps(exact(), LINEAR, K) for K in (1, 2, 5, 10, 40, 128, 129)]
    bits = [chain_bits_per_dim(exact(), LINEAR, chain) for chain in chains]
    assert bits == sorted(bits, reverse=True)


def test_steps_for_samples_are_spent_where_the_image_is_made() -> None:
    likelihood, samples = (
        optimal_timesteps(exact(), LINEAR, 10, objective=objective)
        for objective in ("likelihood", "samples")
    )
    assert samples.double().mean() > likelihood.double().mean() + 10
    for variance_type in ("fixed_large", "fixed_small", "learned"):
        again = optimal_timesteps(
            exact(), LINEAR, 10, variance_type=variance_type, objective="samples"
        )
        assert torch.equal(again, samples)


def test_learned_variances_take_the_steps_of_the_analytic_one() -> None:
    chains = [
        optimal_timesteps(exact(), LINEAR, 7, variance_type=name).tolist()
        for name in ("learned_range", "analytic", "fixed_large")
    ]
    assert chains[0] == chains[1] != chains[2]


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_stochastic_ddim_has_a_bound(eta: float) -> None:
    chain = spaced_timesteps(1000, 20, "linspace")
    bits = chain_bits_per_dim(exact(), LINEAR, chain, eta=eta)
    ddpm = chain_bits_per_dim(exact(), LINEAR, chain)
    assert bits == pytest.approx(ddpm, abs=1e-6) if eta == 1 else bits > ddpm


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": 0}, "eta must be above 0 for a bound, got 0"),
        ({"timesteps": [3, 5]}, "descending order"),
        ({"variance_type": "learned"}, "got 'learned'; use variational_bound"),
        ({"schedule": NoiseSchedule.linear(10)}, "for 1000 timesteps, .* has 10"),
        ({"schedule": NoiseSchedule.cosine(1000)}, "another noise schedule"),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    arguments = {"schedule": LINEAR, "timesteps": [999, 5]} | options
    with pytest.raises(ValueError, match=message):
        chain_bits_per_dim(exact(), **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"K": 0}, "num_inference_steps must be an integer from 1 to 1000 .*, got 0"),
        ({"K": 5, "objective": "fid"}, "objective must be one of likelihood, samples, got 'fid'"),
    ],
)
def test_impossible_chains_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimal_timesteps(exact(), LINEAR, **options)
