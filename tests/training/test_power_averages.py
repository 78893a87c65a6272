"""Power-function averages, against sums over all the weights there were."""

from __future__ import annotations

from functools import cache

import mpmath
import pytest
import torch
from torch import Tensor

from ddpm_pipeline.training.averages import WeightAverages
from ddpm_pipeline.training.power_averages import PowerAverages
from ddpm_pipeline.training.profiles import Profile, mixture_of

LENGTHS = (0.02, 0.05, 0.1, 0.25)


@cache
def exponent(sigma_rel: float) -> float:
    """The root of the paper's cubic: (g + 2)^2 (g + 3) s^2 = g + 1."""
    s = mpmath.mpf(sigma_rel) ** 2
    roots = mpmath.polyroots([s, 7 * s, 16 * s - 1, 12 * s - 1])
    return float(max(root.real for root in roots))


def walk(steps: int, size: int = 300) -> Tensor:
    """Weights that begin away from zero and move at random, float64 (steps, size)."""
    generator = torch.Generator().manual_seed(0)
    moves = torch.randn(steps, size, generator=generator, dtype=torch.float64)
    start = 3 * torch.randn(size, generator=generator, dtype=torch.float64)
    return start + moves.cumsum(0) / steps**0.5


def direct(weights: Tensor, sigma_rel: float, step: int) -> Tensor:
    """The average by its definition: update i counts as the profile's integral over it."""
    edges = torch.linspace(0, 1, step + 1, dtype=torch.float64) ** (exponent(sigma_rel) + 1)
    return edges.diff() @ weights[:step]


def averaged(weights: Tensor, lengths: tuple[float, ...]) -> dict[tuple[float, int], Tensor]:
    """What ``PowerAverages`` holds after every update."""
    parameter, found = torch.zeros(weights.shape[1]), {}
    averages = PowerAverages({"w": parameter}, lengths)
    for step, value in enumerate(weights, start=1):
        parameter.copy_(value)
        averages.update()
        found |= {(s, step): averages.state(s)["w"].clone() for s in lengths}
    return found


def test_an_average_is_the_sum_by_its_definition_at_every_step() -> None:
    weights = walk(120)
    for (sigma_rel, step), value in averaged(weights, LENGTHS).items():
        expected = direct(weights, sigma_rel, step)
        torch.testing.assert_close(value.double(), expected, rtol=3e-6, atol=3e-6)


def test_the_first_update_leaves_nothing_of_what_was_before() -> None:
    parameter = torch.full((3,), 1e9)
    averages = PowerAverages({"w": parameter}, LENGTHS)
    parameter.fill_(1.0)
    averages.update()
    assert all(torch.equal(averages.state(s)["w"], torch.ones(3)) for s in LENGTHS)


def test_the_average_by_default_is_one_of_length_0_048() -> None:
    """Until its decay is limited: their weights on a unit step differ by a per cent or two."""
    parameter = torch.zeros(1)
    stock = WeightAverages({"w": parameter}, (0.999,), inv_gamma=19.0, power=1.0)
    power = PowerAverages({"w": parameter}, (0.04756,))
    for step in range(1, 2001):
        parameter.fill_(float(step > 1900))
        stock.update()
        power.update()
    assert power.state(0.04756)["w"].item() == pytest.approx(
        stock.state(0.999)["w"].item(), rel=0.02
    )


# Reconstruction.

# The error for 8, 16, ... snapshots may be at most this, relative to the wanted profile.
ALLOWED = {
    8: {0.02: 0.26, 0.03: 0.11, 0.075: 0.013, 0.15: 0.034, 0.2: 0.08, 0.25: 0.19},
    32: {0.02: 0.041, 0.03: 0.012, 0.075: 1e-3, 0.15: 2.4e-3, 0.2: 6.6e-3, 0.25: 0.035},
    128: {0.02: 2.8e-3, 0.03: 8e-4, 0.075: 6e-5, 0.15: 1.5e-4, 0.2: 5e-4, 0.25: 6.5e-3},
}


@pytest.mark.parametrize("count", ALLOWED)
def test_any_length_is_made_of_two(count: int) -> None:
    """Profiles, by quadrature, and the averages of a random walk, by sums over all of it."""
    steps = 512
    weights = walk(steps)
    kept = averaged(weights, (0.05, 0.1))
    every = steps // count
    stored = [Profile(s, t) for t in range(every, steps + 1, every) for s in (0.05, 0.1)]
    moved = (weights[-1] - weights.mean(0)).norm()
    profiles = torch.stack([on_a_grid(*profile, steps) for profile in stored])
    for sigma_rel, allowed in ALLOWED[count].items():
        mixture = mixture_of(stored, Profile(sigma_rel, steps))
        found = sum(
            w * kept[profile].double()
            for w, profile in zip(mixture.weights.tolist(), stored, strict=True)
        )
        assert mixture.error <= allowed
        wanted = on_a_grid(sigma_rel, steps, steps)
        missed = (mixture.weights @ profiles - wanted).norm() / wanted.norm()
        assert mixture.error == pytest.approx(missed.item(), rel=0.01)
        assert (found - direct(weights, sigma_rel, steps)).norm() <= allowed * moved


def on_a_grid(sigma_rel: float, t: int, end: int) -> Tensor:
    """The profile on a fine grid of [0, end]."""
    tau = (torch.arange(40 * end, dtype=torch.float64) + 0.5) / 40
    g = exponent(sigma_rel)
    return torch.where(tau <= t, (g + 1) * (tau / t) ** g / t, 0.0)


@pytest.mark.parametrize("step", [64, 300, 512])
@pytest.mark.parametrize("sigma_rel", [0.05, 0.1])
def test_a_stored_average_is_made_of_itself(sigma_rel: float, step: int) -> None:
    stored = [Profile(s, t) for t in (64, 128, 300, 301, 400, 512) for s in (0.05, 0.1)]
    mixture = mixture_of(stored, Profile(sigma_rel, step))
    expected = torch.tensor([float(p == (sigma_rel, step)) for p in stored], dtype=torch.float64)
    torch.testing.assert_close(mixture.weights, expected, rtol=0, atol=1e-9)
    assert mixture.error < 1e-6


def test_weights_that_never_moved_come_out_as_they_are() -> None:
    stored = [Profile(s, t) for t in (100, 200) for s in (0.05, 0.1)]
    for sigma_rel in (0.01, 0.03, 0.2, 0.28):
        total = mixture_of(stored, Profile(sigma_rel, 170)).weights.sum().item()
        assert total == pytest.approx(1, abs=1e-12)
