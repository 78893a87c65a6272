"""Variances by predicted value, as measured: they are the best, and cost what is said of them."""

from __future__ import annotations

import json
import math
from functools import lru_cache

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ddpm_pipeline import Calibration, DDPMScheduler, calibrate, variational_bound
from ddpm_pipeline.calibration.value_decoder import has_value_classes
from ddpm_pipeline.diffusion.gaussian import Gaussian
from ddpm_pipeline.diffusion.spectral import BasisGaussian
from ddpm_pipeline.likelihood import ode_likelihood
from ddpm_pipeline.schedulers.optimal import chain_bits_per_dim

T = 100


def images(count: int, seed: int = 0) -> Tensor:
    """A black left half beside random levels, 8-bit, (count, 1, 8, 8)."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(60, 200, (count, 1, 8, 8), generator=generator)
    levels[..., :4] = 0
    return levels.float() / 127.5 - 1


def network(x_t: Tensor, t: Tensor) -> Tensor:
    """It knows the half that is black; elsewhere it takes what it sees, and draws it together."""
    signal = SCHEDULER.schedule.alpha_bar(t).sqrt().reshape(-1, 1, 1, 1).to(x_t)
    x_0 = 0.9 * (x_t / signal).clamp(-1, 1)
    x_0[..., :4] = -1 + 0.01 * x_0[..., :4]
    return x_0


SCHEDULER = DDPMScheduler(T, prediction_type="sample", clip_sample=False)


@lru_cache(maxsize=1)
def calibration() -> Calibration:
    return calibrate(
        network,
        SCHEDULER,
        images(400).split(50),
        generator=torch.Generator().manual_seed(0),
        num_forwards=1500,
    )


def test_the_price_is_that_of_forward_passes_and_below_that_of_one_variance() -> None:
    found, chain, bounds = calibration(), [99, 60, 30, 12, 4], {}
    for variance_type in ("analytic", "spectral"):
        scheduler = SCHEDULER.with_calibration(found, variance_type=variance_type)
        report = variational_bound(
            network,
            scheduler,
            images(300, seed=1),
            timesteps=chain,
            generator=torch.Generator().manual_seed(1),
        )
        price = chain_bits_per_dim(found, SCHEDULER.schedule, chain, variance_type=variance_type)
        assert price == pytest.approx(report.bits_per_dim, abs=0.1)
        bounds[variance_type] = report
    assert bounds["spectral"].decoder < bounds["analytic"].decoder - 0.2


@pytest.mark.parametrize("variance_type", ["analytic", "spectral"])
def test_the_flow_has_the_decoder_of_the_bound(variance_type: str) -> None:
    scheduler = SCHEDULER.with_calibration(calibration(), variance_type=variance_type)
    x_0 = images(4, seed=1)
    flow, bound = (
        measure(
            lambda x_t, t: network(x_t, t.round().long()),
            scheduler,
            x_0,
            generator=torch.Generator().manual_seed(1),
            **how,
        )
        for measure, how in (
            (ode_likelihood, {"rtol": 0.5, "atol": 0.5, "num_probes": 1}),
            (variational_bound, {}),
        )
    )
    assert flow.decoder == pytest.approx(bound.decoder, rel=1e-4)


def test_no_other_variance_of_the_wide_values_costs_much_less() -> None:
    """By torch's own normal distribution, on images that the calibration has not seen."""
    scheduler = SCHEDULER.with_calibration(calibration(), variance_type="spectral")
    scheduler.set_timesteps(timesteps=[99, 4])
    x_0, t = images(200, seed=2), torch.tensor(4)
    level = SCHEDULER.schedule
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(2))
    x_t = level.alpha_bar(t).sqrt() * x_0 + level.one_minus_alpha_bar(t).sqrt() * noise
    p = scheduler.reverse(network(x_t.float(), t.expand(200)), 4, x_t.float())
    assert isinstance(p, Gaussian)

    def bits(std: Tensor) -> float:
        normal = torch.distributions.Normal(p.mean.double(), std.double())
        mass = normal.cdf(x_0.double() + 1 / 255) - normal.cdf(x_0.double() - 1 / 255)
        return -mass[..., 5:].clamp(min=1e-30).log2().mean().item()

    std = (0.5 * p.log_var).exp()
    own = bits(std)
    assert own < min(bits(std * factor) for factor in (0.5, 2.0))
    assert own < min(bits(std * factor) for factor in (0.8, 0.9, 1.1, 1.25)) + 0.02
    assert std[..., :3].max() < std[..., 6:].min() / 3


def test_other_moves_are_in_the_basis_as_before() -> None:
    scheduler = SCHEDULER.with_calibration(calibration(), variance_type="spectral")
    scheduler.set_timesteps(timesteps=[99, 4])
    x = images(2)
    assert isinstance(scheduler.reverse(x, 99, x), BasisGaussian)
    drawn = scheduler.step(x, 4, x).prev_sample
    assert_close(drawn, x)  # no noise is drawn on clean data


def test_it_is_saved_in_few_kilobytes_and_older_ones_are_read() -> None:
    values = calibration().to_dict()
    again = Calibration.from_dict(json.loads(json.dumps(values)))
    assert again.to_dict() == values
    assert values["version"] == 4
    assert len(json.dumps(values["value_decoder"])) < 40_000
    del values["value_decoder"]
    old = Calibration.from_dict(values | {"version": 3})
    assert old.value_decoder is None
    assert old.to_dict() == values | {"version": 3}
    chain = [99, 4]
    costs = [
        chain_bits_per_dim(c, SCHEDULER.schedule, chain, variance_type="spectral")
        for c in (again, old)
    ]
    assert costs[0] < costs[1]
    assert math.isfinite(costs[1])
    for damage in ({"variance": "1"}, {"variance": "1 2", "gain": "0"}, 5):
        with pytest.raises(ValueError, match="value"):
            Calibration.from_dict(values | {"version": 4, "value_decoder": damage})


def test_which_images_have_them() -> None:
    assert has_value_classes((1, 8, 8), is_discrete=True)
    assert not has_value_classes((1, 8, 8), is_discrete=False)
    assert not has_value_classes((4,), is_discrete=True)
    assert not has_value_classes((1, 2, 2, 2, 2), is_discrete=True)
