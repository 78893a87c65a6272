"""The order of the data as a function of (seed, step, rank)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from ddpm_pipeline.data.order import batch_indices, epoch_order


@given(
    length=st.integers(1, 60),
    batch_size=st.integers(1, 8),
    world_size=st.integers(1, 4),
    seed=st.integers(0, 2**40),
)
def test_the_ranks_together_go_through_one_epoch_after_another(
    length: int, batch_size: int, world_size: int, seed: int
) -> None:
    together = batch_size * world_size
    if together > length:
        return
    steps = -(-2 * length // together)
    seen = [
        batch_indices(
            step, length=length, batch_size=batch_size, seed=seed, rank=r, world_size=world_size
        )
        for step in range(steps)
        for r in range(world_size)
    ]
    assert {len(indices) for indices in seen} == {batch_size}
    places = torch.cat(seen).tolist()
    assert sorted(places[:length]) == list(range(length))
    assert sorted(places[length : 2 * length]) == list(range(length))


def test_more_ranks_see_what_one_rank_sees() -> None:
    """World size 4 with batch 3 is one process with batch 12, cut in four."""
    whole = batch_indices(5, length=100, batch_size=12, seed=1)
    parts = [
        batch_indices(5, length=100, batch_size=3, seed=1, rank=r, world_size=4) for r in range(4)
    ]
    assert torch.equal(whole, torch.cat(parts))


def test_a_step_does_not_depend_on_the_steps_before_it() -> None:
    order = {"length": 37, "batch_size": 5, "seed": 7}
    forwards = [batch_indices(step, **order).tolist() for step in range(40)]
    backwards = [batch_indices(step, **order).tolist() for step in reversed(range(40))]
    assert forwards == backwards[::-1]


def test_results_are_the_callers_to_change() -> None:
    order = {"length": 10, "batch_size": 10, "seed": 0}
    before = batch_indices(0, **order).tolist()
    batch_indices(0, **order).zero_()
    epoch_order(10, 0, 0).zero_()
    assert batch_indices(0, **order).tolist() == before == epoch_order(10, 0, 0).tolist()


def test_orders_of_seeds_and_epochs_differ() -> None:
    orders = {
        tuple(epoch_order(50, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)
    }
    assert len(orders) == 25


def test_every_order_is_equally_likely() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(2400):
        order = tuple(epoch_order(4, 0, epoch).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer of at least 1, got 2.5"),
        ({"batch_size": 11}, "batch_size=11 on 1 processes is larger than the data: 10 images"),
        ({"batch_size": 4, "world_size": 3}, "batch_size=4 on 3 processes is larger"),
        ({"rank": 1}, "rank must be in 0 ... world_size - 1, got 1 of 1"),
        ({"step": -1}, "step must be an integer of at least 0, got -1"),
    ],
)
def test_bad_arguments(change: dict[str, int], message: str) -> None:
    arguments = {"step": 0, "length": 10, "batch_size": 2, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        batch_indices(arguments.pop("step"), **arguments)
