"""Steps of optimal_samples for solver "multistep": by the spectrum of a calibration."""

from __future__ import annotations

from dataclasses import replace

import diffusers
import pytest
import torch
from helpers.calibrations import calibration_from_errors
from torch.testing import assert_close

from ddpm_pipeline import Calibration, DDPMScheduler
from ddpm_pipeline.diffusion import (
    ComponentErrors,
    Components,
    final_error,
    held_prediction_costs,
    linear_error,
    spaced_timesteps,
)
from ddpm_pipeline.diffusion.spectral import NUM_KNOTS
from ddpm_pipeline.schedulers import MeasuredSpectrum

CONFIG = {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False, "prediction_type": "sample"}
VARIANCE = torch.logspace(1, -2, 64).double().reshape(1, 8, 8)


def calibration() -> Calibration:
    """Of a perfect network for Gaussian data of a falling spectrum."""
    schedule = DDPMScheduler(**CONFIG).schedule
    error = linear_error(schedule, float(VARIANCE.mean()))
    ratio = torch.zeros(NUM_KNOTS, 1, 4, 4, dtype=torch.float64)
    spectrum = MeasuredSpectrum(
        channels=torch.eye(1, dtype=torch.float64),
        sizes=(8, 8),
        data_variance=VARIANCE,
        log_ratio=ratio,
        standard_error=ratio[:, 0, 0, 0],
    )
    return calibration_from_errors(schedule, error, spectrum=spectrum)


FOUND = calibration()


def scheduler(solver: str = "multistep", **options: object) -> DDPMScheduler:
    made = DDPMScheduler(**CONFIG).with_calibration(
        FOUND, variance_type="fixed_small", timestep_spacing="optimal_samples"
    )
    made.set_solver(solver, **options)
    return made


@pytest.mark.parametrize("order", [2, 3])
def test_the_steps_are_better_than_those_for_ddim_and_than_even_ones(order: int) -> None:
    multistep, components = scheduler(order=order), Components.of(VARIANCE)
    errors = []
    trailing = spaced_timesteps(1000, 6, "trailing").tolist()
    steps = [multistep.calibrated_timesteps(6, name) for name in ("multistep", "ddim")]
    for chain in (*steps, trailing):
        chains = torch.tensor([chain])
        errors.append(final_error(multistep.schedule, chains, components, order=order))
    assert errors[0] < 0.9 * min(errors[1:])


def test_a_chain_of_any_length_starts_at_the_top_and_has_no_repeats() -> None:
    made = scheduler()
    for K in (1, 2, 11, 24, 40, 1000):
        made.set_timesteps(K)
        chain = made.timesteps
        assert len(chain) == K
        assert chain[0] == 999
        assert (chain.diff() < 0).all()
        assert chain[-1] >= 0


def test_no_chain_of_few_steps_costs_less_and_many_are_even() -> None:
    made, T = scheduler(), len(FOUND.x_0_error)
    spectrum = FOUND.spectrum.tabulate(made.schedule, FOUND.x_0_error)
    costs = held_prediction_costs(made.schedule, ComponentErrors.of(spectrum))

    def cost(chain: list[int]) -> float:
        return float(costs[chain, torch.tensor([*chain[1:], -1]) + 1].sum())

    found = made.calibrated_timesteps(5, "multistep")
    for i in range(1, 5):
        for shift in (-40, -3, 3, 40):
            other = sorted([*found[:i], found[i] + shift, *found[i + 1 :]], reverse=True)
            assert other[-1] < 0 or cost(other) >= cost(found)
    even = spaced_timesteps(T, 25, "trailing").tolist()
    assert made.calibrated_timesteps(25, "multistep") == even
    between = made.calibrated_timesteps(24, "multistep")
    assert max(abs(a - b) for a, b in zip(between, even, strict=False)) < 60


def test_other_solvers_keep_their_steps() -> None:
    chains = []
    for name in ("ddpm", "ddim", "multistep"):
        made = scheduler(name)
        made.set_timesteps(6)
        chains.append(made.timesteps.tolist())
    assert chains[0] == chains[1] != chains[2]
    assert chains[2] == scheduler("ddpm").calibrated_timesteps(6, "multistep")


def test_stocks_unipc_walks_them_to_the_same_images() -> None:
    ours = scheduler()
    ours.set_timesteps(8)
    steps = ours.calibrated_timesteps(8)
    stock = diffusers.UniPCMultistepScheduler.from_config(ours.config)
    stock.set_timesteps(8)
    noise = ((1 - stock.alphas_cumprod) / stock.alphas_cumprod).sqrt()
    stock.timesteps, stock.sigmas = torch.tensor(steps), torch.cat([noise[steps], torch.zeros(1)])
    images = []
    for each in (ours, stock):
        x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        for t in each.timesteps:
            x = each.step(torch.tanh(1.3 * x), t, x).prev_sample
        images.append(x)
    assert_close(*images, rtol=0, atol=1e-4)


def test_without_a_spectrum_it_says_so() -> None:
    made = DDPMScheduler(**CONFIG).with_calibration(
        replace(FOUND, spectrum=None), timestep_spacing="optimal_samples"
    )
    made.set_solver("multistep")
    with pytest.raises(ValueError, match="needs a calibration with a spectrum, got one without"):
        made.set_timesteps(8)
    made.set_solver("ddim")
    made.set_timesteps(8)
    with pytest.raises(ValueError, match="order of solver must be at most K = 2, got 3"):
        scheduler(order=3).set_timesteps(2)
