"""The sums of an interrupted bound are found again by whoever asks for the same bound."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.bound_settings import SETTINGS as SMALL_BOUND

from ddpm_pipeline.likelihood.blocks import BoundData
from ddpm_pipeline.likelihood.state import SavedBound
from ddpm_pipeline.likelihood.totals import BoundTotals

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = replace(SMALL_BOUND, chain=(2, 1), seed=3)


def sums() -> BoundTotals:
    zeros = BoundTotals.zeros(3, 2, 1)
    return zeros.unflatten(torch.rand(zeros.flatten().shape, dtype=torch.float64))


def saved(path: Path | None, *, any_seed: bool = True, writes: bool = True) -> SavedBound:
    data = BoundData(torch.zeros(3, 1, 2, 2), None, in_range=True)
    return SavedBound(path, data, {}, any_seed=any_seed, writes=writes)


def test_saved_sums_are_loaded_again_or_refused(tmp_path: Path) -> None:
    path, totals = tmp_path / "state", sums()
    saved(path).save(totals, SETTINGS)
    assert [p.name for p in tmp_path.iterdir()] == ["state"]
    settings, loaded = saved(path).load(replace(SETTINGS, seed=4))
    assert torch.equal(loaded.flatten(), totals.flatten())
    assert settings.seed == 3
    with pytest.raises(ValueError, match=r"it has chain = \(2, 1\), here it is \(2, 0\); delete"):
        saved(path).load(replace(SETTINGS, chain=(2, 0)))
    with pytest.raises(ValueError, match="it has seed = 3, here it is 4"):
        saved(path, any_seed=False).load(replace(SETTINGS, seed=4))
    saved(path, writes=False).delete()
    assert path.exists()
    saved(path).delete()
    assert not path.exists()


def test_without_a_path_nothing_is_kept() -> None:
    state = saved(None)
    state.save(sums(), SETTINGS)
    state.delete()
    assert state.load(SETTINGS) == (SETTINGS, None)
