"""What steps need is kept within a limit, and made anew beyond it."""

from __future__ import annotations

import pytest
import torch
from helpers.coloured_noise import SHAPE, coloured_scheduler
from torch import Tensor

from ddpm_pipeline.schedulers import kept_tables
from ddpm_pipeline.schedulers.kept_tables import KeptTables


def test_the_first_tables_stay_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_tables, "_MOST_BYTES", 100)
    made, tables = [], KeptTables()

    def table(size: int) -> tuple[Tensor]:
        made.append(size)
        return (torch.full((size,), size, dtype=torch.uint8),)

    for _ in range(2):
        for size in (60, 50, 40):
            [found] = tables.get(size, lambda size=size: table(size))
            assert found.tolist() == [size] * size
    assert made == [60, 50, 40, 50]


@pytest.mark.parametrize("solver", ["ddpm", "spectral"])
def test_a_long_chain_of_spectral_steps_keeps_no_more(
    monkeypatch: pytest.MonkeyPatch, solver: str
) -> None:
    """And draws the same."""
    ends, kept = [], []
    get = KeptTables.get
    for limit in (2**28, 20_000):
        monkeypatch.setattr(kept_tables, "_MOST_BYTES", limit)
        seen = {}
        monkeypatch.setattr(
            KeptTables, "get", lambda self, *a, seen=seen: get(seen.setdefault(id(self), self), *a)
        )
        scheduler, data = coloured_scheduler()
        scheduler.set_timesteps(50)
        scheduler.set_solver(solver)
        x, generator = torch.ones(1, *SHAPE), torch.Generator().manual_seed(0)
        for t in scheduler.timesteps:
            x = scheduler.step(data(x, t), t, x, generator=generator).prev_sample
        ends.append(x)
        held = [v for tables in seen.values() for row in tables._tables.values() for v in row]
        kept.append(sum(v.nbytes for v in held))
    assert torch.equal(*ends)
    assert kept[0] > kept[1] > 0
    assert kept[1] <= 20_000


def test_the_first_step_of_a_walk_and_the_last_keep_two_tables() -> None:
    """Order 1, of which there is nothing to weigh but the state and the prediction."""
    scheduler, _ = coloured_scheduler()
    scheduler.set_timesteps(4)
    scheduler.set_solver("spectral")
    x = torch.ones(1, *SHAPE)
    for t in scheduler.timesteps:
        x = scheduler.step(x, t, x).prev_sample
    tables = scheduler._walked._steps._tables
    assert [len(weights) for weights in tables.values()] == [2, 4, 4, 2]
