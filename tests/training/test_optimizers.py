"""The learning rate of every update and the optimiser, against those of diffusers and torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from diffusers.optimization import get_scheduler
from helpers.training_runs import a_learner, metrics, run_forked, tiny_config

from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.optimizers import (
    hidden_kernels,
    learning_rates,
    make_optimizer,
    set_learning_rate,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel


pytestmark = pytest.mark.usefixtures("random_last_layers")
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


@pytest.mark.parametrize(("accumulation", "processes"), [(4, 1), (1, 2)])
def test_stock_learning_rate_never_finishes(
    tmp_path: Path, accumulation: int, processes: int
) -> None:
    config = tiny_config(
        tmp_path,
        gradient_accumulation_steps=accumulation,
        train_batch_size=2,
        max_train_steps=12,
        lr_warmup_steps=3,
        learning_rate=1e-3,
        lr_scheduler="linear",
        logging_steps=1,
        save_images_steps=0,
        checkpointing_steps=0,
    )
    assert run_forked(config, processes=processes) == [0] * processes
    rates = [entry["learning_rate"] for entry in metrics(tmp_path / "run")]
    assert rates.index(max(rates)) == 3  # not at 3 x 4, nor at 3 / 2
    assert max(rates) == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-3 / 9)  # one step from zero


def test_the_optimizer_gets_the_rate() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    set_learning_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] == 0.25


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


def test_weight_decay_spares_norms_and_biases(tmp_path: Path) -> None:
    for both in (False, True):
        learner = a_learner(tmp_path, adam_weight_decay=0.1, decay_norms_and_biases=both)
        decays = {
            name: group["weight_decay"]
            for group in learner.optimizer.param_groups
            for name, parameter in learner.parameters.items()
            if any(parameter is p for p in group["params"])
        }
        assert decays["conv_in.weight"] == 0.1
        assert decays["conv_in.bias"] == decays["conv_norm_out.weight"] == (0.1 if both else 0.0)
        assert len(decays) == len(learner.parameters)
        assert learner.optimizer.defaults["fused"]
