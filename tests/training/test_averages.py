"""The averages of the weights, against their equation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.training_utils import EMAModel
from helpers.device_counts import DeviceCounts

from ddpm_pipeline.training.averages import WeightAverages
from ddpm_pipeline.training.config import TrainingConfig


def test_averages_follow_the_equation_of_the_module() -> None:
    weight = torch.nn.Parameter(torch.tensor([0.0, 5.0]))
    averages = WeightAverages({"w": weight}, (0.5, 0.999), inv_gamma=19.0, power=1.0)
    expected = {0.5: weight.detach().clone().double(), 0.999: weight.detach().clone().double()}
    for i in range(1, 60):
        with torch.no_grad():
            weight.add_(torch.tensor([0.1, -0.2]))
        averages.update()
        for limit, value in expected.items():
            decay = min(limit, (i - 1) / (i + 18))
            value.mul_(decay).add_(weight.detach().double(), alpha=1 - decay)
    for limit, value in expected.items():
        torch.testing.assert_close(averages.state(limit)["w"], value.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("inv_gamma", "power"), [(19.0, 1.0), (1.0, 0.75), (1.0, 0.0)])
def test_averages_are_those_of_diffusers_to_the_bit(inv_gamma: float, power: float) -> None:
    weights = {str(n): torch.nn.Parameter(torch.randn(n)) for n in (1, 7, 64, 1000)}
    options = {"inv_gamma": inv_gamma, "power": power}
    averages = WeightAverages(weights, (0.9,), **options)
    stock = EMAModel(
        weights.values(),
        decay=0.9,
        min_decay=0.0 if power else 0.9,
        use_ema_warmup=power > 0,
        foreach=True,
        **options,
    )
    for _ in range(60):
        for weight in weights.values():
            with torch.no_grad():
                weight.add_(torch.randn_like(weight), alpha=0.1)
        averages.update()
        stock.step(weights.values())
        assert all(map(torch.equal, averages.state(0.9).values(), stock.shadow_params))


def test_an_average_is_moved_in_one_operator_without_a_copy() -> None:
    weights = {str(n): torch.nn.Parameter(torch.randn(n)) for n in (3, 5)}
    averages = WeightAverages(weights, (0.9,), inv_gamma=19.0, power=1.0)
    for _ in range(40):
        averages.update()
    with DeviceCounts("cpu") as counts:
        averages.update()
    assert counts.kernels == {"_foreach_lerp_": 1}


def test_an_average_stands_in_for_the_weights_and_gives_them_back() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    averages = WeightAverages({"w": weight}, (0.9, 0.99), inv_gamma=1.0, power=0.0)
    with torch.no_grad():
        weight.fill_(2.0)
    own = weight.data_ptr()
    with averages.applied(0.99):
        assert torch.equal(weight, torch.ones(3))
    with pytest.raises(ZeroDivisionError), averages.applied():
        _ = 1 / 0
    assert torch.equal(weight, torch.full((3,), 2.0))
    assert weight.data_ptr() == own


def test_stock_ema_keeps_the_first_noise(tmp_path: Path) -> None:
    """What is left of the initial weights after 500 updates, and how much is averaged by then."""
    config = TrainingConfig()
    weight = torch.nn.Parameter(torch.ones(3))
    averages = WeightAverages(
        {"w": weight}, config.ema_decay, inv_gamma=config.ema_inv_gamma, power=config.ema_power
    )
    averages.update()
    with torch.no_grad():
        weight.zero_()
    for _ in range(500):
        averages.update()
    left = averages.state(0.999)["w"][0].item()
    assert 0 < left < 1e-20
    # Yet it averages: the last update counts for a few per cent only.
    with torch.no_grad():
        weight.fill_(1.0)
    averages.update()
    assert 0.001 < averages.state(0.999)["w"][0].item() < 0.06
