"""One block of the bound: what the device is asked for, and how its rows are summed up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from helpers.device_counts import DEVICE, DeviceCounts, stand_in_device
from torch import Tensor

from ddpm_pipeline import DDPMScheduler
from ddpm_pipeline.diffusion import ReverseProcess
from ddpm_pipeline.likelihood.blocks import Block
from ddpm_pipeline.likelihood.estimator import BoundEstimator
from ddpm_pipeline.likelihood.report import BoundSettings
from ddpm_pipeline.likelihood.transitions import make_transition_sampler

T = 20


class OneOfSeveral(NamedTuple):
    """One process's accelerator, whose sums stay its own."""

    process_index: int
    num_processes: int

    def reduce(self, values: Tensor, reduction: str) -> Tensor:
        assert reduction == "sum"
        return values


def estimator(
    model: Callable[..., object],
    *,
    variance_type: str = "fixed_large",
    device: torch.device | str = "cpu",
    batch_size: int = 16,
    steps: int = T,
    accelerator: OneOfSeveral | None = None,
) -> BoundEstimator:
    schedule = DDPMScheduler(num_train_timesteps=T).schedule
    settings = BoundSettings(
        chain=tuple(range(T - 1, T - 1 - steps, -1)),
        num_train_timesteps=T,
        dims=64,
        prediction_type="epsilon",
        variance_type=variance_type,
        decoder="discretized",
        decoder_variance="model",
        clip_x_0=None,
        num_timestep_samples=3,
        timestep_sampler="rate",
        seed=1,
    )
    return BoundEstimator(
        model=model,
        process=ReverseProcess(schedule, "epsilon", variance_type),
        settings=settings,
        sampler=make_transition_sampler("rate", schedule, settings.chain, 3),
        batch_size=batch_size,
        device=torch.device(device),
        accelerator=accelerator,
    )


@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large", "learned_range"])
def test_the_host_waits_once_for_a_block(tiny_unet: Callable, variance_type: str) -> None:
    outputs = 2 if variance_type == "learned_range" else 1
    unet = tiny_unet(out_channels=outputs, num_class_embeds=3).to(DEVICE)
    block = Block(0, torch.zeros(20, 1, 8, 8), torch.zeros(20, dtype=torch.int64))
    with stand_in_device(), torch.no_grad():
        measure = estimator(unet, variance_type=variance_type, device=DEVICE)
        with DeviceCounts():
            measure(block)  # makes the tables
        with DeviceCounts() as counts:
            measure(block)
    assert [place.partition(" ")[0] for place in counts.waits] == ["_to_copy"]
    assert len(counts.pinned) == 3  # images, labels, and where the rows are
    assert counts.unpinned == []


def test_no_number_depends_on_the_rows_of_a_call() -> None:
    calls = []

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(len(t))
        return x_t * 0.5

    block = Block(7, torch.linspace(-1, 1, 30 * 64).reshape(30, 1, 8, 8), None)
    few, many = (estimator(model, batch_size=rows)(block) for rows in (7, 4096))
    assert max(calls[:-2]) <= 7
    assert calls[-2:] == [30, 90]
    for name in ("transitions", "decoder", "last_error", "prior", "off_grid", "step_counts"):
        torch.testing.assert_close(getattr(few, name), getattr(many, name), rtol=1e-12, atol=0)
    assert few.step_counts.sum() == 30 * (3 + 1)
    # Of a Gaussian with nothing but noise in it, the first term of the paper's equation 5.
    var = 1 - float(DDPMScheduler(num_train_timesteps=T).schedule.alpha_bar(T - 1))
    squares = block.x_0.double().square().flatten(1).sum(1)
    prior = 0.5 * ((1 - var) * squares + 64 * (var - 1 - math.log(var)))
    torch.testing.assert_close(few.prior, prior, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, T])
@pytest.mark.parametrize("examples", [1, 5])
def test_the_shares_of_all_processes_are_the_whole(steps: int, examples: int) -> None:
    """Also of more processes than there are rows, each of which calls the model as often."""
    calls = []

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(len(t))
        return x_t * 0.5

    def sums(rank: int, world: int) -> Tensor:
        accelerator = OneOfSeveral(rank, world)
        block = Block(0, torch.linspace(-1, 1, examples * 64).reshape(-1, 1, 8, 8), None)
        measure = estimator(model, batch_size=2, steps=steps, accelerator=accelerator)
        return measure(block).flatten()

    alone = sums(0, 1)
    for world in (2, 4):
        numbers_of_calls = set()
        parts = []
        for rank in range(world):
            calls.clear()
            parts.append(sums(rank, world))
            numbers_of_calls.add(len(calls))
        torch.testing.assert_close(sum(parts), alone)
        assert len(numbers_of_calls) == 1
