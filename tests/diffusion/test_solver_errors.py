"""What a solver gets wrong on Gaussian data: a walk of the scheduler, and brute force."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.testing import assert_close

from ddpm_pipeline import DDPMScheduler
from ddpm_pipeline.diffusion.schedule import NoiseSchedule
from ddpm_pipeline.diffusion.solver_errors import (
    Components,
    best_chain,
    final_error,
    step_errors,
)

DATA = Components(torch.tensor([0.02, 0.3, 4.0]).double(), torch.tensor([0.5, 0.3, 0.2]).double())
ZERO_SNR = NoiseSchedule.cosine(100).zero_terminal_snr()


@pytest.mark.parametrize(("order", "corrector"), [(1, False), (2, False), (2, True), (3, True)])
def test_the_final_error_is_that_of_images_that_the_scheduler_draws(
    order: int, corrector: bool
) -> None:
    scheduler = DDPMScheduler(
        100, prediction_type="sample", clip_sample=False, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(7)
    scheduler.set_solver("multistep", order=order, corrector=corrector)
    x = torch.ones(1, 1, 3, dtype=torch.float64)
    for t in scheduler.timesteps:
        signal = scheduler.schedule.alpha_bar(int(t))
        gain = signal.sqrt() * DATA.variance / (signal * DATA.variance + 1 - signal)
        x = scheduler.step(gain * x, t, x).prev_sample
    expected = ((x.flatten() - DATA.variance.sqrt()).square() * DATA.share).sum()
    found = final_error(
        scheduler.schedule, scheduler.timesteps[None], DATA, order=order, corrector=corrector
    )
    assert_close(found, expected[None], rtol=1e-9, atol=0)


def test_errors_of_two_steps_are_those_that_a_walk_makes() -> None:
    """With two steps of DDIM there is one step beside that to the data."""
    chains = torch.tensor([[99, 60], [99, 20]])
    noises = [ZERO_SNR.snr(t).reciprocal() for t in (99, 60, 20)]
    angles = [torch.atan((noise / DATA.variance).sqrt()) for noise in noises]
    first = [1 - torch.cos(angles[0] - a) for a in angles[1:]]
    last = [1 - torch.cos(a) for a in angles[1:]]
    expected = []
    for a, one, two in zip(angles[1:], first, last, strict=True):
        # Of the last state only its prediction is seen, cos² of what the state is off.
        seen = one * torch.cos(a) * torch.cos(a) / torch.cos(a)
        expected.append((DATA.variance * (seen.square() + two.square()) * DATA.share).sum())
    found = step_errors(ZERO_SNR, chains, DATA, order=1, corrector=False)
    assert_close(found, torch.stack(expected), rtol=1e-9, atol=0)


@pytest.mark.parametrize("order", [1, 2])
def test_many_steps_make_no_error(order: int) -> None:
    few, many = (
        step_errors(ZERO_SNR, torch.arange(99, -1, -step)[None], DATA, order=order)
        for step in (20, 2)
    )
    assert many < few / 20


def test_the_best_chain_is_that_of_brute_force() -> None:
    schedule = NoiseSchedule.cosine(16).zero_terminal_snr()
    for order in (1, 2, 3):

        def error(chains: torch.Tensor, order: int = order) -> torch.Tensor:
            return step_errors(schedule, chains, DATA, order=order)

        every = [[15, *rest[::-1]] for rest in itertools.combinations(range(15), 3)]
        least = error(torch.tensor(every)).min()
        # Order 2 has a second minimum, with two steps close together at the start.
        found = best_chain(error, [[15, 11, 7, 3], [15, 14, 12, 3]])
        assert_close(error(torch.tensor([found]))[0], least, rtol=1e-4, atol=0)


def test_groups_keep_the_mean_and_the_number_of_components() -> None:
    variance = torch.rand(3, 8, 8).double().pow(6)
    found = Components.of(variance)
    assert len(found.variance) < 80
    assert_close(found.share.sum(), torch.tensor(1.0).double())
    assert_close(found.mean(found.variance), variance.mean(), rtol=1e-5, atol=0)
