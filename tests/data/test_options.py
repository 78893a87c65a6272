"""Options of reading: what is given comes before what is remembered, and both go into JSON."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from ddpm_pipeline import TrainingConfig
from ddpm_pipeline.calibration import CalibrateConfig
from ddpm_pipeline.data.options import ReadingOptions
from ddpm_pipeline.evaluation import EvaluateConfig
from ddpm_pipeline.likelihood import BoundConfig, ScoreConfig

NAMES = {field.name for field in fields(ReadingOptions)}


def test_what_is_given_comes_first() -> None:
    given = ReadingOptions(fit="pad", strict_data=False)
    remembered = ReadingOptions(fit="resize", value_range=(0, 1), strict_data=True)
    expected = ReadingOptions(fit="pad", value_range=(0, 1), strict_data=False)
    assert given.over(remembered) == expected
    assert ReadingOptions().over(remembered) == remembered


def test_they_are_json_and_back() -> None:
    options = ReadingOptions(value_range=(-1, 1), image_column="img", center_crop=True)
    values = json.loads(json.dumps(options.to_dict()))
    assert values == {"value_range": [-1, 1], "image_column": "img", "center_crop": True}
    assert ReadingOptions.from_dict(values | {"of a later version": 3}) == options
    assert ReadingOptions().to_dict() == {}


def test_they_are_taken_from_a_config() -> None:
    config = TrainingConfig(value_range=(0.0, 1.0), fit="pad", label_column="fine")
    expected = {"value_range": (0.0, 1.0), "fit": "pad", "label_column": "fine"}
    taken = ReadingOptions.of(config)
    assert type(taken) is ReadingOptions
    assert {name: getattr(taken, name) for name in expected} == expected


@pytest.mark.parametrize("config", [BoundConfig, ScoreConfig, CalibrateConfig, EvaluateConfig])
def test_every_command_that_measures_has_every_option_under_trainings_name(config: type) -> None:
    has = {field.name for field in fields(config)}
    assert has >= NAMES | {"split", "cache_dir", "dataset_config_name"}
    training = {field.name for field in fields(TrainingConfig)}
    assert training >= NAMES - {"background", "max_pixels"}
    assert all(field.default is None for field in fields(config) if field.name in NAMES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be an integer of at least 1, got 0"),
        ({"value_range": (1, 0)}, r"value_range must be \(low, high\), got \(1, 0\)"),
    ],
)
@pytest.mark.parametrize("config", [BoundConfig, ScoreConfig, CalibrateConfig, EvaluateConfig])
def test_mistakes_are_named_at_once(config: type, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(model=".", data="x", **options)
