"""Samplers of the training timestep: their law, their spread, their determinism."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from ddpm_pipeline.timesteps import (
    TIMESTEP_SAMPLERS,
    low_discrepancy_timesteps,
    make_timestep_sampler,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", TIMESTEP_SAMPLERS)
@pytest.mark.parametrize("T", [1, 7, 1000])
def test_draws_lie_in_the_chain_and_follow_the_generator(name: str, T: int) -> None:
    sampler = make_timestep_sampler(name, T)
    t, weights = sampler.sample(64, seeded(3))
    again, _ = sampler.sample(64, seeded(3))
    assert t.dtype == torch.int64
    assert t.shape == weights.shape == (64,)
    assert t.min() >= 0
    assert t.max() < T
    assert torch.equal(t, again)


@pytest.mark.parametrize("name", TIMESTEP_SAMPLERS)
def test_each_position_of_a_batch_is_uniform(name: str) -> None:
    T, sampler = 50, make_timestep_sampler(name, 50)
    batches = torch.stack([sampler.sample(8, seeded(i))[0] for i in range(4000)])
    for position in (0, 3, 7):
        counts = torch.bincount(batches[:, position], minlength=T)
        assert stats.chisquare(counts.numpy()).pvalue > 1e-4


@pytest.mark.parametrize("name", TIMESTEP_SAMPLERS)
def test_the_weighted_mean_over_t_is_the_uniform_one(name: str) -> None:
    T, sampler = 100, make_timestep_sampler(name, 100)
    loss = torch.exp(-torch.arange(T) / 20.0)
    draws = [sampler.sample(16, seeded(i)) for i in range(2000)]
    means = torch.stack([(w * loss[t]).mean() for t, w in draws])
    error = means.std() / len(means) ** 0.5
    assert abs(means.mean() - loss.mean()) < 4 * error + 1e-6


def test_low_discrepancy_has_one_timestep_in_each_stretch_of_the_chain() -> None:
    for seed in range(20):
        t = low_discrepancy_timesteps(1000, 50, seeded(seed))
        assert torch.equal((t // 20).sort().values, torch.arange(50))


def test_low_discrepancy_beats_uniform_draws_in_variance() -> None:
    loss = torch.exp(-torch.arange(1000) / 200.0)

    def spread(name: str) -> float:
        sampler = make_timestep_sampler(name, 1000)
        return torch.stack(
            [loss[sampler.sample(64, seeded(i))[0]].mean() for i in range(500)]
        ).std()

    assert spread("low_discrepancy") < spread("uniform") / 5


def test_an_unknown_sampler_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"timestep_sampler must be one of uniform, .*'sobol'"):
        make_timestep_sampler("sobol", 10)
