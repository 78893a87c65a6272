"""Prices of moves with one variance for each frequency, for data whose entropy is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.calibrations import known
from helpers.coloured_noise import ColouredNoise
from torch.testing import assert_close

from ddpm_pipeline import NoiseSchedule
from ddpm_pipeline.diffusion.spacing import spaced_timesteps
from ddpm_pipeline.schedulers.optimal import chain_bits_per_dim, chain_costs, optimal_timesteps
from ddpm_pipeline.schedulers.spectral import (
    error_spectrum,
    spectral_chain_costs,
    spectral_decoder_costs,
    spectral_step_costs,
)

LINEAR = NoiseSchedule.linear(1000)
ZERO_SNR = NoiseSchedule.cosine(300).zero_terminal_snr()


@pytest.mark.parametrize("schedule", [LINEAR, ZERO_SNR])
@pytest.mark.parametrize("steepness", [0.1, 0.4, 1.0])
@pytest.mark.parametrize("K", [1, 2, 10, 25, 300])
def test_gaussian_data_of_any_spectrum_cost_their_entropy(
    schedule: NoiseSchedule, steepness: float, K: int
) -> None:
    data = ColouredNoise(schedule, steepness=steepness)
    found, chain = data.calibration(), spaced_timesteps(len(schedule), K, "linspace")
    cost = chain_bits_per_dim(found, schedule, chain, variance_type="spectral")
    assert cost == pytest.approx(data.bits_per_dim, abs=1e-6)
    scalar = chain_bits_per_dim(found, schedule, chain, variance_type="analytic")
    assert scalar > cost + 1e-3
    ddim = chain_bits_per_dim(found, schedule, chain, variance_type="spectral", eta=1.0)
    assert ddim == pytest.approx(cost, abs=1e-9)


def test_the_optimal_steps_are_those_of_the_price() -> None:
    """An imperfect network, for which it matters where the steps are."""
    data = ColouredNoise(LINEAR)
    error = data.calibration().x_0_error * 1.2 + 1e-4
    found = replace(data.calibration(), x_0_error=error, x_0_variance=error)
    costs = {}
    for name in ("spectral", "analytic"):
        chain = optimal_timesteps(found, LINEAR, 10, variance_type=name)
        costs[name] = chain_bits_per_dim(found, LINEAR, chain, variance_type="spectral")
    even = spaced_timesteps(1000, 10, "linspace")
    assert costs["spectral"] < chain_bits_per_dim(found, LINEAR, even, variance_type="spectral")
    assert costs["spectral"] < costs["analytic"] - 1e-3
    generator = torch.Generator().manual_seed(0)
    best = optimal_timesteps(found, LINEAR, 10, variance_type="spectral")
    for _ in range(200):
        other = best + torch.randint(-9, 10, (10,), generator=generator)
        other = other.clamp(0, 999).unique().flip(0)
        other[0] = 999
        if len(other) == 10:
            cost = chain_bits_per_dim(found, LINEAR, other, variance_type="spectral")
            assert cost > costs["spectral"] - 1e-4


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_all_moves_at_once_cost_what_they_cost_one_by_one(share: float) -> None:
    """Also with variances that are not the error, as those of the paper's moment."""
    found, chain = ColouredNoise(ZERO_SNR).calibration(), torch.tensor([299, 200, 199, 40, 3, 0])
    found = replace(found, x_0_variance=share * found.x_0_error)
    decoder = spectral_decoder_costs(found, ZERO_SNR, torch.arange(300))
    table = spectral_step_costs(found, ZERO_SNR, decoder)
    assert table[chain[:-1], chain[1:] + 1].tolist() == pytest.approx(
        spectral_chain_costs(found, ZERO_SNR, chain).tolist(), rel=2e-3
    )
    expected = chain_costs(found, ZERO_SNR, chain, "spectral")
    assert_close(expected[-1], decoder[0])
    assert table[:, 0].tolist() == decoder.tolist()
    assert table[10, 11:].isinf().all()


def test_a_calibration_without_a_spectrum_has_no_spectral_price() -> None:
    with pytest.raises(ValueError, match="'spectral' needs a calibration with a spectrum, which"):
        optimal_timesteps(known(), LINEAR, 10, variance_type="spectral")
    with pytest.raises(ValueError, match="needs a calibration with a spectrum"):
        chain_bits_per_dim(known(), LINEAR, [9, 3], variance_type="spectral")
    found = ColouredNoise(LINEAR).calibration()
    with pytest.raises(ValueError, match="another noise schedule"):
        error_spectrum(found, NoiseSchedule.cosine(1000))
