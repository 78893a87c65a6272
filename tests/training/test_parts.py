"""Parts of a U-Net, and the rates of its levels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.training_runs import a_learner, batches
from helpers.unets import make_tiny_unet

from ddpm_pipeline.networks import fresh_unet, unet_config
from ddpm_pipeline.training.learner import Learner
from ddpm_pipeline.training.parts import rate_factors, train_only
from ddpm_pipeline.training.setup import make_scheduler


def trained(part: str, changed: tuple[str, ...] = ()) -> set[str]:
    """The weights of a small U-Net of three levels that a part leaves to be trained."""
    with torch.device("meta"):
        unet = fresh_unet(unet_config("small", resolution=28, channels=1, num_classes=2))
    train_only(unet, part, changed)
    return {name for name, p in unet.named_parameters() if p.requires_grad}


def test_parts_are_what_their_names_say() -> None:
    everything = trained("all")
    assert trained("decoder") == {
        n for n in everything if n.startswith(("up_blocks", "conv_norm_out", "conv_out"))
    }
    last = ("up_blocks.1", "up_blocks.2", "conv_norm_out", "conv_out")
    assert trained("last_levels") == {n for n in everything if n.startswith(last)}
    assert trained("classes") == {"class_embedding.weight"}
    some = trained("attention_and_norms")
    assert {n for n in everything if "norm" in n or "attentions" in n} == some
    assert "conv_in.weight" in trained("decoder", ("conv_in.weight",))
    with pytest.raises(ValueError, match="train_only='classes': the network has no such"):
        train_only(make_tiny_unet(1), "classes")


def test_rates_decay_by_level_from_the_output_to_the_input() -> None:
    with torch.device("meta"):
        unet = fresh_unet(unet_config("small", resolution=28, channels=1))
    rates = rate_factors(dict(unet.named_parameters()), 0.5)
    order = ["conv_out.weight", "up_blocks.2.resnets.0.conv1.weight"]
    order += ["up_blocks.1.resnets.0.conv1.weight", "up_blocks.0.resnets.0.conv1.weight"]
    order += ["mid_block.resnets.0.conv1.weight", "down_blocks.2.resnets.0.conv1.weight"]
    order += ["down_blocks.1.resnets.0.conv1.weight", "down_blocks.0.resnets.0.conv1.weight"]
    order += ["conv_in.weight"]
    assert [rates[name] for name in order] == [0.5**n for n in range(9)]
    assert rates["time_embedding.linear_1.weight"] == rates["conv_in.weight"]
    assert set(rate_factors(rates, 1.0).values()) == {1.0}


@pytest.mark.parametrize("part", ["attention_and_norms", "classes"])
def test_a_rate_does_not_depend_on_what_else_is_trained(tmp_path: Path, part: str) -> None:
    whole = a_learner(tmp_path, class_conditional=True, embeddings=4, layer_decay=0.5)
    config, unet, accelerator = whole.config, whole.unet, whole.accelerator
    train_only(unet, part)
    some = Learner(config, make_scheduler(config).schedule, unet, accelerator)
    expected = {id(p): g["factor"] for g in whole.optimizer.param_groups for p in g["params"]}
    found = {id(p): g["factor"] for g in some.optimizer.param_groups for p in g["params"]}
    assert 0 < len(found) < len(expected)
    assert found == {p: expected[p] for p in found}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_first_step_of_each_level_is_as_large_as_its_rate(
    tmp_path: Path, optimizer: str
) -> None:
    moved = {}
    for decay in (1.0, 0.5):
        learner = a_learner(
            tmp_path / str(decay), optimizer=optimizer, layer_decay=decay, lr_warmup_steps=0
        )
        with torch.no_grad():
            for parameter in learner.unet.parameters():
                parameter.add_(0.01)  # the last layers are zero, and give others no gradient
        before = {n: p.detach().clone() for n, p in learner.parameters.items()}
        learner.update(0, iter(batches(learner)))
        moved[decay] = {n: (p.detach() - before[n]).norm() for n, p in learner.parameters.items()}
    rates = rate_factors(moved[1.0], 0.5)
    for name, plain in moved[1.0].items():
        if plain > 1e-6:
            assert moved[0.5][name] / plain == pytest.approx(rates[name], rel=0.05), name


@pytest.mark.parametrize("part", ["decoder", "last_levels", "attention_and_norms"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_the_part_moves(tmp_path: Path, part: str, optimizer: str) -> None:
    whole = a_learner(tmp_path, optimizer=optimizer, lr_warmup_steps=0)
    unet = whole.unet
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.01)
    train_only(unet, part)
    learner = Learner(whole.config, make_scheduler(whole.config).schedule, unet, whole.accelerator)
    before = {n: p.detach().clone() for n, p in unet.named_parameters()}
    for step in range(2):
        learner.update(step, iter(batches(learner)))
    moved = {n for n, p in unet.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert moved <= set(learner.parameters)
    assert set(learner.state()["average-0.999"]) == set(learner.parameters)
