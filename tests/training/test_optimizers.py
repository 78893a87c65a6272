"""The learning rate of every update, and EMA, against diffusers and closed forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from diffusers.optimization import get_scheduler

from ddpm_pipeline.training.averages import WeightAverages
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.optimizers import (
    Muon,
    hidden_kernels,
    learning_rates,
    make_optimizer,
    set_learning_rate,
)
from ddpm_pipeline.training.resolving import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel

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


@pytest.mark.parametrize(
    ("num_updates", "expected"),
    [
        (20, [0, 1, 2, 3] + 13 * [4] + [3, 2, 1]),
        (10, [0, 1, 2, 3, 4, 4, 4, 4, 4, 2]),
        (6, [0, 1, 2, 3, 4, pytest.approx(10 / 3)]),
        (5, [0, 1, 2, 3, 4]),
    ],
)
def test_the_last_fifth_of_a_run_cools_down(num_updates: int, expected: list[float]) -> None:
    config = TrainingConfig(lr_warmup_steps=4, learning_rate=4.0)
    assert config.lr_scheduler == "constant_with_cooldown"
    assert list(map(learning_rates(config, num_updates), range(num_updates))) == expected


def test_warm_up_takes_at_most_half_of_a_short_run() -> None:
    config = TrainingConfig(lr_warmup_steps=100, max_train_steps=10)
    config = resolve(config, length=None, world_size=1, device=torch.device("cpu"))
    assert config.lr_warmup_steps == 5
    assert resolve(config, length=None, world_size=1, device=torch.device("cpu")) == config


def test_the_optimizer_gets_the_rate() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    set_learning_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] == 0.25


def an_adamw(*parameters: torch.nn.Parameter) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1, fused=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_moves_as_the_matrix_of_its_rows(layout: torch.memory_format) -> None:
    kernel = torch.nn.Parameter(torch.randn(6, 4, 3, 3).to(memory_format=layout))
    other = torch.nn.Parameter(torch.randn(6))
    matrix = torch.nn.Parameter(kernel.detach().reshape(6, 36).clone())
    alone = torch.nn.Parameter(other.detach().clone())
    muon = Muon([kernel], an_adamw(other), weight_decay=0.1, momentum=0.9)
    oracles = (
        torch.optim.Muon(
            [matrix], lr=1e-2, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
        ),
        an_adamw(alone),
    )
    for update in range(5):
        for optimizer in (muon, *oracles):
            set_learning_rate(optimizer, 0.1 / (update + 1))
        kernel.grad = torch.randn_like(kernel)
        matrix.grad = kernel.grad.reshape(6, 36).clone()
        other.grad = torch.randn(6)
        alone.grad = other.grad.clone()
        for optimizer in (muon, *oracles):
            optimizer.step()
    # Newton and Schulz's iteration is in bfloat16, and columns may stand in another order.
    torch.testing.assert_close(kernel.reshape(6, 36), matrix, rtol=0, atol=2e-3)
    assert torch.equal(other, alone)
    assert set(muon.state[kernel]) == {"momentum_buffer"}
    assert {"exp_avg", "exp_avg_sq"} < set(muon.state[other])


def test_steps_of_muon_are_those_of_an_orthogonal_matrix() -> None:
    kernel = torch.nn.Parameter(torch.zeros(16, 8, 3, 3))
    muon = Muon([kernel], an_adamw(torch.nn.Parameter(torch.zeros(1))), weight_decay=0, momentum=0)
    kernel.grad = torch.randn_like(kernel)
    muon.step()
    step = -kernel.detach().flatten(1) / (1e-2 * 0.2 * 72**0.5)
    left, _, right = torch.linalg.svd(kernel.grad.flatten(1), full_matrices=False)
    singular = torch.linalg.svdvals(step)
    assert 0.6 < singular.min() < singular.max() < 1.3
    cosine = torch.nn.functional.cosine_similarity(step.flatten(), (left @ right).flatten(), 0)
    assert cosine > 0.97


def test_all_but_hidden_convolutions_stays_with_adamw(
    tiny_unet: Callable[..., UNet2DModel],
) -> None:
    unet = tiny_unet(num_class_embeds=3)
    parameters = dict(unet.named_parameters())
    hidden = {id(p) for p in hidden_kernels(parameters)}
    convolutions = {
        id(module.weight): name
        for name, module in unet.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    }
    assert hidden < set(convolutions)
    assert {convolutions[key] for key in set(convolutions) - hidden} == {"conv_in", "conv_out"}
    outer = [p for p in parameters.values() if p.ndim >= 2 and id(p) not in hidden]
    config = TrainingConfig(optimizer="muon", learning_rate=1e-3, adam_weight_decay=0.1)
    groups = make_optimizer(parameters, config).param_groups
    assert [len(group["params"]) for group in groups[:2]] == [len(hidden), len(outer)]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1, 0.0]
    assert sum(len(group["params"]) for group in groups) == len(parameters)
    adamw = make_optimizer(parameters, config.replace(optimizer="adamw"))
    assert isinstance(adamw, torch.optim.AdamW)


def test_muon_is_for_whole_matrices_in_bfloat16() -> None:
    def resolved(**options: object) -> tuple[str, float, int]:
        config = TrainingConfig(max_train_steps=1000, **options)
        config = resolve(config, length=None, world_size=2, device=torch.device("cpu"))
        return config.optimizer, config.learning_rate, config.lr_warmup_steps

    muon, adamw = ("muon", 2e-3, 25), ("adamw", 1e-3, 100)
    assert resolved(mixed_precision="bf16") == resolved(optimizer="muon") == muon
    assert resolved(mixed_precision="no") == resolved(optimizer="adamw") == adamw
    assert resolved(mixed_precision="bf16", fsdp=True) == adamw
    own = {"learning_rate": 0.5, "lr_warmup_steps": 3}
    assert resolved(mixed_precision="bf16", **own) == ("muon", 0.5, 3)
    with pytest.raises(ValueError, match="optimizer 'muon' does not work with fsdp"):
        TrainingConfig(fsdp=True, optimizer="muon")


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
