"""Spacings: exactly K timesteps whatever the spacing, and diffusers' wherever it is right."""

from itertools import combinations, pairwise

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm_pipeline.diffusion.choices import SPACINGS
from ddpm_pipeline.diffusion.spacing import check_chain, shortest_paths, spaced_timesteps


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("T", [1, 2, 3, 10, 61, 1000])
def test_every_k_gives_k_strictly_decreasing_timesteps(spacing: str, T: int) -> None:
    for K in range(1, T + 1):
        chain = spaced_timesteps(T, K, spacing).tolist()
        assert len(chain) == K
        assert chain == sorted(set(chain), reverse=True)
        assert 0 <= chain[-1] <= chain[0] < T
        if spacing != "leading":
            assert chain[0] == T - 1


@given(st.integers(1, 5000), st.data(), st.sampled_from(SPACINGS))
def test_the_same_for_any_length_of_chain(T: int, data: st.DataObject, spacing: str) -> None:
    K = data.draw(st.integers(1, T))
    assert len(spaced_timesteps(T, K, spacing)) == K


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_stock_spacings_differ_only_where_stock_is_wrong(spacing: str) -> None:
    stock = diffusers.DDPMScheduler(timestep_spacing=spacing)
    different = []
    for K in range(1, 1001):
        stock.set_timesteps(K)
        if stock.timesteps.tolist() != spaced_timesteps(1000, K, spacing).tolist():
            different.append(K)
            assert len(stock.timesteps) == K + 1 or (spacing, K) == ("linspace", 1)
    assert len(different) == {"leading": 0, "trailing": 62, "linspace": 1}[spacing]


def test_quadratic_is_denser_near_the_data() -> None:
    gaps = -spaced_timesteps(1000, 10, "quadratic").diff()
    assert (gaps.diff() < 0).all()


def test_leading_adds_its_offset() -> None:
    assert spaced_timesteps(1000, 4, "leading", steps_offset=1).tolist() == [751, 501, 251, 1]
    with pytest.raises(ValueError, match="steps_offset must be at most 0 for 1000 leading steps"):
        spaced_timesteps(1000, 1000, "leading", steps_offset=1)


@pytest.mark.parametrize("K", [0, -1, 1001, 2.5, True, None])
def test_impossible_numbers_of_steps_are_refused(K: object) -> None:
    with pytest.raises(ValueError, match=f"integer from 1 to 1000 .*got {K!r}"):
        spaced_timesteps(1000, K, "trailing")


def test_unknown_spacing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"timestep_spacing must be one of .*got 'log'"):
        spaced_timesteps(10, 5, "log")


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ([], "at least one timestep"),
        ([3, 5], "descending order"),
        ([5, 5], "without repeats"),
        ([10, 5], r"lie in \[0, 9\]"),
        ([5, -1], r"lie in \[0, 9\]"),
        ([5.5, 1], "must be integers, got 5.5"),
        ([float("nan")], "must be integers, got nan"),
        (["a"], "must be integers, got 'a'"),
        (7, "must be a list of integers, got 7"),
        (None, "must be a list of integers, got None"),
    ],
)
def test_chains_that_are_none_are_refused(chain: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_chain(chain, 10)


def cheapest(costs: list[list[float]], start: int, K: int) -> float:
    """The least cost of K steps from start to the data, by trying all chains."""
    chains = ((start, *rest[::-1], -1) for rest in combinations(range(start), K - 1))
    return min(sum(costs[t][s + 1] for t, s in pairwise(chain)) for chain in chains)


@pytest.mark.parametrize("seed", range(3))
def test_the_shortest_paths_are_those_of_brute_force(seed: int) -> None:
    T = 12
    generator = torch.Generator().manual_seed(seed)
    costs = torch.rand(T, T + 1, generator=generator, dtype=torch.float64)
    paths = shortest_paths(costs, T)
    for start in (T - 1, 6):
        for K in range(1, start + 2):
            chain = paths.chain(K, start).tolist()
            assert len(check_chain(chain, T)) == K
            assert chain[0] == start
            total = sum(costs[t, s + 1].item() for t, s in pairwise([*chain, -1]))
            assert total == pytest.approx(cheapest(costs.tolist(), start, K), abs=1e-12)
            assert paths.costs[K - 1, start].item() == pytest.approx(total, abs=1e-12)


def test_the_last_move_may_depend_on_the_one_before() -> None:
    T = 8
    generator = torch.Generator().manual_seed(0)
    costs, last = torch.rand(2, T, T + 1, generator=generator, dtype=torch.float64)
    paths = shortest_paths(costs, T, last_costs=last)
    for K in range(1, T + 1):
        chains = [(T - 1, *rest[::-1]) for rest in combinations(range(T - 1), K - 1)]

        def total(chain: tuple[int, ...]) -> float:
            moves = sum(costs[t, s + 1].item() for t, s in pairwise(chain))
            end = costs[T - 1, 0] if len(chain) == 1 else last[chain[-2], chain[-1] + 1]
            return moves + end.item()

        best = min(chains, key=total)
        assert paths.chain(K).tolist() == list(best)
        assert paths.costs[K - 1, T - 1].item() == pytest.approx(total(best))


def test_a_chain_needs_room_below_its_start() -> None:
    paths = shortest_paths(torch.ones(4, 5), 4)
    assert torch.isinf(paths.costs[2, :2]).all()
    with pytest.raises(ValueError, match=r"start must lie in \[2, 3\] for 3 steps, got 1"):
        paths.chain(3, start=1)
    with pytest.raises(ValueError, match="K must be an integer from 1 to 4, got 5"):
        paths.chain(5)


def test_moves_upwards_are_ignored_whatever_they_cost() -> None:
    costs = torch.ones(3, 4)
    costs[0, 1:], costs[1, 2:], costs[2, 3] = -9.0, torch.nan, -torch.inf
    assert shortest_paths(costs, 3).costs[:, 2].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("costs", "max_steps", "message"),
    [
        (torch.ones(3, 3), 1, r"must have shape \(T, T \+ 1\), got \(3, 3\)"),
        (torch.ones(3, 4), 4, "max_steps must be an integer from 1 to 3, got 4"),
        (torch.full((3, 4), torch.nan), 2, "must be numbers, got NaN"),
    ],
)
def test_impossible_path_problems_are_refused(
    costs: torch.Tensor, max_steps: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        shortest_paths(costs, max_steps)


def test_numpy_integers_are_integers() -> None:
    assert len(spaced_timesteps(1000, np.int64(10), "trailing")) == 10
    assert check_chain(np.array([5, 3]), 10) == [5, 3]
