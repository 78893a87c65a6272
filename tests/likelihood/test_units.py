"""Bits per dimension at the depth and in the unit of the data, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.exact_fields import GaussianField
from scipy.stats import norm

from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.data.model_images import ModelBatches
from ddpm_pipeline.likelihood.bound import variational_bound
from ddpm_pipeline.likelihood.report import BoundReport
from ddpm_pipeline.likelihood.units import levels_of, units_of
from ddpm_pipeline.networks.value_scale import ValueScale
from ddpm_pipeline.schedulers.scheduler import DDPMScheduler

SHAPE, COUNT = (7, 48, 80), 12
MEANS = np.array([0, 5, -3, 100, 2, 300, 0.0])[:, None, None]
STDS = np.array([1, 2, 3, 10, 0.5, 0.1, 50.0])[:, None, None]


def exact_bound(data: ImageData, mean: np.ndarray, std: np.ndarray) -> BoundReport:
    """The bound of a field by its exact network."""
    scheduler = DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        variance_type="analytic",
        rescale_betas_zero_snr=True,
    )
    center, unit = (np.array(v)[:, None, None] for v in (data.scale.center, data.scale.unit))
    signal = scheduler.schedule.alpha_bar(torch.arange(1000))
    field = GaussianField(
        signal, torch.from_numpy((mean - center) / unit), torch.from_numpy((std / unit) ** 2)
    )
    return variational_bound(
        field,
        scheduler,
        ModelBatches(data),
        timesteps=[*range(999, 0, -50), 0],  # of Gaussians any chain's bound is tight
        x_0_variance=field.error(),
        generator=torch.Generator().manual_seed(0),
        **units_of(data.scale),
    )


def test_the_density_of_a_field_and_of_the_same_field_in_thousandths() -> None:
    draws = np.random.default_rng(0).normal(size=(COUNT, *SHAPE))
    values = (MEANS + STDS * draws).astype(np.float32)
    nll = -norm.logpdf(values, MEANS, STDS).mean() / math.log(2)
    found = {}
    for factor in (1, 1000):
        data = open_images(
            values * np.float32(factor), resolution=SHAPE[1:], depth="exact", progress=False
        )
        report = exact_bound(data, MEANS * factor, STDS * factor)
        assert report.settings.decoder == "continuous"
        assert report.nats == pytest.approx(report.bits_per_dim * math.prod(SHAPE) * math.log(2))
        found[factor] = report.bits_per_dim
    assert found[1] == pytest.approx(nll, abs=0.01)
    # float32 rounds the values themselves, by 3e-8 of them on average.
    assert found[1000] - found[1] == pytest.approx(math.log2(1000), abs=2e-6)


@pytest.mark.parametrize("value_range", [(0, 4095), None])
def test_the_probability_of_12_bits_in_uint16(value_range: tuple[int, int] | None) -> None:
    draws = np.random.default_rng(1).normal(2000, 400, (COUNT, *SHAPE))
    values = np.rint(draws).clip(0, 4095).astype(np.uint16)
    data = open_images(
        values, resolution=SHAPE[1:], depth="exact", value_range=value_range, progress=False
    )
    report = exact_bound(data, np.full((7, 1, 1), 2000.0), np.full((7, 1, 1), 400.0))
    k = np.arange(4096)
    code = norm.cdf(k + 0.5, 2000, 400) - norm.cdf(k - 0.5, 2000, 400)
    assert report.bits_per_dim == pytest.approx(-np.log2(code[values]).mean(), abs=0.01)
    assert report.settings.num_levels == (4096 if value_range else 65536)
    assert not report.warnings
    assert "discretized in " in str(report)


def test_only_the_levels_that_occur_have_a_probability() -> None:
    values = (np.random.default_rng(0).integers(0, 256, (8, 1, 8, 8)) * 16 + 3).astype(np.uint16)
    data = open_images(values, resolution=8, channels=1, depth="exact", progress=False)
    levels = levels_of(data.scale)
    assert (data.scale.low, data.scale.step, levels.count) == (3, 16, 4096)
    assert not levels.between(data.model_values(data.batch(range(8)).images)).any()


def test_units_follow_from_the_data() -> None:
    floats = ValueScale("float32", (0.0,), (2.0,))
    integers = ValueScale("uint16", (0.0,), (2.0,), 0, 3, 1)
    assert units_of(None) == {"decoder": "discretized"}
    assert units_of(floats) == {"decoder": "continuous", "log_unit": math.log(2)}
    assert units_of(integers, "continuous")["log_unit"] == math.log(2)
    assert units_of(integers)["levels"].count == 4
    with pytest.raises(ValueError, match="must be 'continuous' for float32 values"):
        units_of(floats, "discretized")
