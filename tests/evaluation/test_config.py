"""Options of an evaluation are checked when they are made."""

from __future__ import annotations

from typing import Any

import pytest

from ddpm_pipeline.evaluation.config import EvaluateConfig


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kid_subsets": 1}, "kid_subsets must be at least 2, got 1"),
        ({"bound_timesteps": 0}, "bound_timesteps must be at least 1, got 0"),
        ({"num_images": 0}, "num_images must be at least 1, got 0"),
        ({"num_kept": 0}, "num_kept must be at least 1, got 0"),
        ({"neighbors": 0}, "neighbors must be at least 1, got 0"),
        ({"num_nearest": -1}, "num_nearest must be at least 0, got -1"),
        ({"channels": 0}, "channels must be an integer of at least 1, got 0"),
        ({"value_range": (1, 0)}, r"value_range must be \(low, high\), got \(1, 0\)"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EvaluateConfig(model=".", data="data", **options)


def test_a_model_of_the_hub_needs_a_place_for_the_report() -> None:
    with pytest.raises(ValueError, match=r"output_dir must be given for model='someone/model'"):
        EvaluateConfig(model="someone/model", data="data")
    EvaluateConfig(model="someone/model", data="data", output_dir="here")


def test_the_users_home_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nowhere/me")
    names = ("data", "samples", "features", "bound_data", "output_dir", "cache_dir")
    config = EvaluateConfig(model=".", statistics_dir="~/s", **{n: f"~/{n}" for n in names})
    assert [getattr(config, name) for name in names] == [f"/nowhere/me/{name}" for name in names]
    assert config.statistics_dir == "/nowhere/me/s"
