"""Variances by predicted value: classes, and what is read between the knots."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ddpm_pipeline.diffusion.schedule import NoiseSchedule
from ddpm_pipeline.diffusion.spectral import NUM_KNOTS, snr_at_knots
from ddpm_pipeline.diffusion.value_decoder import (
    NUM_VALUE_CLASSES,
    ValueDecoder,
    prediction_scale,
    value_classes,
)

LINEAR = NoiseSchedule.linear(1000)


def decoder() -> ValueDecoder:
    generator = torch.Generator().manual_seed(0)
    variance = torch.rand(NUM_KNOTS, NUM_VALUE_CLASSES, generator=generator).double() + 0.1
    return ValueDecoder(variance, torch.rand(NUM_KNOTS, generator=generator).double())


@pytest.mark.parametrize("sizes", [(12,), (8, 9), (4, 5, 6)])
def test_a_class_is_the_place_side_and_spread_of_a_value(sizes: tuple[int, ...]) -> None:
    x = torch.linspace(-1.1, 1.1, 2 * 3 * int(np.prod(sizes))).reshape(2, 3, *sizes)
    found = value_classes(x, torch.tensor([0.1, 0.5]))
    assert found.shape == x.shape
    assert 0 <= found.min() <= found.max() < NUM_VALUE_CLASSES
    # Turning the range around changes the side alone.
    mirrored = value_classes(-x, torch.tensor([0.1, 0.5]))
    assert torch.equal((found - mirrored).abs(), torch.full_like(found, NUM_VALUE_CLASSES // 2))
    # Values of one place and side differ by their surroundings, which an edge changes.
    flat, edge = torch.full((1, 1, 8, 8), -0.9), torch.full((1, 1, 8, 8), -0.9)
    edge[..., 5:] = 0.5
    a, b = (value_classes(y, torch.tensor([0.1]))[0, 0] for y in (flat, edge))
    assert len(a.unique()) == 1
    assert torch.equal(a[:, :3], b[:, :3])
    assert (a[:, 3:5] < b[:, 3:5]).all()


def test_variances_are_those_of_the_class_in_units_of_the_scale() -> None:
    own, t = decoder(), torch.tensor([3, 400])
    x = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(1)).double()
    scale = prediction_scale(LINEAR, t)
    classes, found = value_classes(x, scale), own.log_var(LINEAR, x, t).exp()
    snr = LINEAR.snr(t)
    for i in range(2):
        place = float(np.clip(np.log(float(snr[i])), -12, 14))
        knots = np.log(snr_at_knots().numpy())
        for c in classes[i].unique().tolist():
            logs = np.interp(place, knots, own.variance[:, c].log().numpy())
            values = found[i][classes[i] == c]
            expected = torch.full_like(values, float(np.exp(logs)) * float(scale[i]) ** 2)
            assert_close(values, expected)
    gains = np.interp(np.log(snr.numpy()), knots, own.gain.numpy())
    assert_close(own.gain_at(snr), torch.from_numpy(gains))
    one = own.log_var(LINEAR, x[:1], torch.tensor(3))
    assert torch.equal(one, own.log_var(LINEAR, x, t)[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variance": torch.ones(3, 3)}, r"variance by value must be finite and of shape .*3, 3"),
        ({"gain": torch.full((NUM_KNOTS,), float("nan"))}, "gain by value must be finite"),
        ({"variance": torch.zeros(NUM_KNOTS, NUM_VALUE_CLASSES)}, "must be above 0"),
        ({"gain": torch.full((NUM_KNOTS,), -1.0)}, "gain at least 0"),
    ],
)
def test_tables_that_cannot_be_are_refused(change: dict[str, Tensor], message: str) -> None:
    own = decoder()
    tables = {"variance": own.variance, "gain": own.gain} | change
    with pytest.raises(ValueError, match=message):
        ValueDecoder(**tables)
