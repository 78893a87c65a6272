"""The learning rate of every update, and EMA, against diffusers and closed forms."""

from __future__ import annotations

import pytest
import torch
from diffusers.optimization import get_scheduler

from ddpm_pipeline.ema import WeightAverages
from ddpm_pipeline.optimization import learning_rates, set_learning_rate
from ddpm_pipeline.training import TrainingConfig

SCHEDULES = ["linear", "cosine", "cosine_with_restarts", "polynomial", "constant_with_warmup"]


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_those_of_diffusers_stepped_once_per_update(name: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2e-3)
    stock = get_scheduler(name, optimizer, num_warmup_steps=5, num_training_steps=20)
    rate = learning_rates(
        TrainingConfig(lr_scheduler=name, lr_warmup_steps=5, learning_rate=2e-3), 20
    )
    for update in range(20):
        assert rate(update) == pytest.approx(stock.get_last_lr()[0], abs=1e-8)
        optimizer.step()
        stock.step()


def test_warm_up_takes_at_most_half_of_a_short_run() -> None:
    rate = learning_rates(TrainingConfig(lr_warmup_steps=100), 10)
    assert max(map(rate, range(10))) == rate(5) == 1e-3


def test_the_optimizer_gets_the_rate() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    set_learning_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] == 0.25


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
