"""Spacings: exactly K timesteps whatever the spacing, and diffusers' wherever it is right."""

import diffusers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_pipeline.spacing import SPACINGS, check_chain, spaced_timesteps


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
    with pytest.raises(ValueError, match=r"lie in \[0, 999\], got 1000"):
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
        ([5.5, 1], "must be integers"),
    ],
)
def test_chains_that_are_none_are_refused(chain: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_chain(chain, 10)
