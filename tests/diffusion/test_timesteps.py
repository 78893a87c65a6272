"""Samplers of the training timestep: their law, their spread, their determinism."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from ddpm_pipeline.diffusion.choices import TIMESTEP_SAMPLERS
from ddpm_pipeline.diffusion.timesteps import (
    ImportanceSampler,
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


# Importance

IMPORTANCE = ["importance", "low_discrepancy_importance"]


def taught(name: str, losses: torch.Tensor) -> ImportanceSampler:
    """A sampler that has seen each loss ten times."""
    sampler = make_timestep_sampler(name, len(losses))
    for _ in range(10):
        sampler.update(torch.arange(len(losses)), losses)
    return sampler


@pytest.mark.parametrize("name", IMPORTANCE)
def test_importance_follows_the_root_of_the_second_moment(name: str) -> None:
    losses = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0])
    p = taught(name, losses).probabilities()
    torch.testing.assert_close(p, 0.999 * losses.double() / 16 + 0.001 / 5)
    t, weights = taught(name, losses).sample(40_000, seeded(0))
    torch.testing.assert_close(torch.bincount(t).double() / 40_000, p, rtol=0.1, atol=1e-3)
    torch.testing.assert_close(weights, (1 / (5 * p[t])).float())


@pytest.mark.parametrize("name", IMPORTANCE)
def test_importance_sampling_is_unbiased_and_better_for_unequal_losses(name: str) -> None:
    losses = torch.exp(-torch.arange(100) / 8.0)
    sampler, plain = taught(name, losses), make_timestep_sampler("uniform", 100)

    def means(sampler: object) -> torch.Tensor:
        draws = [sampler.sample(16, seeded(i)) for i in range(2000)]
        return torch.stack([(w * losses[t]).mean() for t, w in draws])

    values = means(sampler)
    assert abs(values.mean() - losses.mean()) < 4 * values.std() / 2000**0.5 + 1e-6
    assert values.std() < 0.2 * means(plain).std()


def test_importance_is_uniform_until_every_timestep_has_ten_losses() -> None:
    sampler = make_timestep_sampler("importance", 3)
    for i in range(9):
        sampler.update(torch.tensor([0, 1, 1, 2, 2]), torch.tensor([1.0, 5.0, 5.0, 9.0, 9.0]))
        assert (sampler.probabilities() == 1 / 3).all(), i
    sampler.update(torch.tensor([0]), torch.tensor([1.0]))
    assert sampler.probabilities().argmax() == 2
    flat = taught("importance", torch.zeros(4))
    assert (flat.probabilities() == 0.25).all()


def test_importance_remembers_the_last_ten_of_each_timestep_in_order() -> None:
    generator = seeded(0)
    sampler, history = make_timestep_sampler("importance", 4), {t: [] for t in range(4)}
    for size in (1, 7, 40, 3, 64, 5):
        t = torch.randint(4, (size,), generator=generator)
        losses = torch.rand(size, generator=generator)
        sampler.update(t, losses)
        for i, loss in zip(t.tolist(), losses.tolist(), strict=True):
            history[i].append(loss)
    assert min(map(len, history.values())) > 10
    roots = [torch.tensor(history[t][-10:]).square().mean().sqrt() for t in range(4)]
    p = torch.stack(roots).double() / sum(roots)
    torch.testing.assert_close(sampler.probabilities(), 0.999 * p + 0.001 / 4)


def test_importance_continues_from_its_state_and_refuses_another_chain() -> None:
    sampler = taught("importance", torch.tensor([3.0, 1.0]))
    state = sampler.state_dict()
    sampler.update(torch.tensor([0]), torch.tensor([100.0]))
    other = make_timestep_sampler("importance", 2)
    other.load_state_dict(state)
    other.update(torch.tensor([0]), torch.tensor([100.0]))
    assert torch.equal(other.sample(50, seeded(1))[0], sampler.sample(50, seeded(1))[0])
    assert torch.equal(other.probabilities(), sampler.probabilities())
    assert state["losses"].max() == 3  # what was saved does not change with the sampler
    with pytest.raises(ValueError, match="must be of 3 timesteps, got 2"):
        make_timestep_sampler("importance", 3).load_state_dict(state)


def test_importance_does_not_remember_losses_that_are_not_finite() -> None:
    sampler = taught("importance", torch.tensor([3.0, 1.0]))
    before = sampler.probabilities()
    sampler.update(torch.tensor([0, 1]), torch.tensor([torch.nan, torch.inf]))
    assert torch.equal(sampler.probabilities(), before)
