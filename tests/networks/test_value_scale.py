"""What a model's unit is in that of its data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ddpm_pipeline.networks.model_facts import ModelFacts
from ddpm_pipeline.networks.value_scale import ValueScale

ALL = np.arange(2**16, dtype=np.uint16).reshape(1, 1, 256, 256)


@pytest.mark.parametrize(
    "scale",
    [
        ValueScale("uint16", (32767.5,), (32767.5,), 0, 65535, 1),
        ValueScale("uint16", (1234.5678,), (4321.0,), 0, 65535, 1),
        ValueScale("int16", (17.0,), (900.0,), -32768, 32767, 1),
    ],
)
def test_every_value_of_16_bits_comes_back(scale: ValueScale) -> None:
    values = ALL.view(scale.dtype)
    x = scale.to_model(torch.from_numpy(values))
    assert x.dtype == torch.float32
    expected = (values.astype(np.float64) - scale.center[0]) / scale.unit[0]
    assert np.abs(x.double().numpy() - expected).max() <= 1e-6 * max(1, np.abs(expected).max())
    found = scale.to_values(x)
    assert found.dtype == values.dtype
    assert np.array_equal(found[..., 0], values[:, 0])


def test_what_is_outside_is_cut_and_what_is_between_goes_to_the_nearest_level() -> None:
    scale = ValueScale("uint16", (100.0,), (10.0,), 4, 99, 16)  # 4, 20, 36, 52, 68, 84
    assert scale.num_levels == 6
    values = np.array([0, 11, 13, 75, 77, 90, 200], np.float64)
    x = torch.from_numpy((values - 100) / 10).view(1, 1, 1, -1)
    assert scale.to_values(x).ravel().tolist() == [4, 4, 20, 68, 84, 84, 84]
    cut = scale.to_model(torch.tensor([0, 200], dtype=torch.uint16).view(1, 1, 1, 2))
    assert torch.allclose(cut.flatten(), torch.tensor([-9.6, -0.1]))


def test_a_centre_far_from_zero_costs_no_digits() -> None:
    values = (np.float32(300) + np.arange(64, dtype=np.float32) / 2**15).reshape(1, 1, 8, 8)
    scale = ValueScale("float32", (300.0,), (2.0**-10,))
    x = scale.to_model(torch.from_numpy(values))
    assert np.array_equal(x.numpy().ravel(), np.arange(64) / 32)
    assert np.array_equal(scale.to_values(x)[..., 0], values[:, 0])


def test_the_volume_is_the_mean_over_channels() -> None:
    scale = ValueScale("float32", (0.0, 1.0), (2.0, 8.0))
    assert scale.log_unit == pytest.approx(2 * math.log(2), rel=1e-15)


def test_a_model_remembers_its_scale() -> None:
    scale = ValueScale("uint16", (1.5, 2.5), (3.0, 4.0), 0, 4095, 1)
    facts = ModelFacts.from_dict(ModelFacts(values=scale.to_dict()).to_dict())
    assert facts.scale == scale
    assert ModelFacts().scale is None


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float64"},
        {"unit": [0.0]},
        {"unit": [math.inf]},
        {"center": [math.nan]},
        {"center": []},
        {"unit": [1.0, 2.0]},
        {"step": None},
        {"step": 0},
        {"low": None},
        {"unit": "x"},
    ],
)
def test_a_damaged_scale_is_refused(change: dict) -> None:
    values = ValueScale("uint16", (1.0,), (3.0,), 0, 4095, 1).to_dict() | change
    with pytest.raises(ValueError, match="the scale of the model's values is damaged"):
        _ = ModelFacts(values=values).scale
