"""Held-out images meet the same draws in every run, on any number of processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from helpers.training_runs import image_data
from torch import Tensor

from ddpm_pipeline.data.pixels import to_model_range
from ddpm_pipeline.schedulers import DDPMScheduler
from ddpm_pipeline.training.validation import validation_bound, validation_loss

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = torch.device("cpu")
LABELS = [i % 3 for i in range(40)]


class Noted:
    """A loss that notes what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor | None, Tensor, Tensor]] = []

    def __call__(self, x_0: Tensor, labels: Tensor | None, eps: Tensor, t: Tensor) -> Tensor:
        self.calls.append((x_0, labels, eps, t))
        return x_0.flatten(1).mean(1) + 100 * t + eps.flatten(1).mean(1)


def measured(rank: int = 0, world_size: int = 1, *, size: int = 7) -> tuple[Tensor, Noted]:
    loss = Noted()
    total = validation_loss(
        loss,
        image_data(labels=LABELS),
        num_train_timesteps=20,
        batch_size=size,
        device=CPU,
        rank=rank,
        world_size=world_size,
    )
    return total, loss


def test_every_image_is_met_once_with_its_label() -> None:
    total, loss = measured()
    x_0, labels, eps, t = (torch.cat(parts) for parts in zip(*loss.calls, strict=True))
    data = image_data(labels=LABELS)
    assert torch.equal(x_0, to_model_range(data.batch(range(40)).images))
    assert labels.tolist() == LABELS
    assert eps.shape == x_0.shape
    assert t.min() >= 0
    assert t.max() < 20
    # One of 40 evenly spread points in each fortieth of the chain, twice each timestep.
    assert torch.bincount(t, minlength=20).tolist() == pytest.approx([2] * 20, abs=1)
    assert t.tolist() != sorted(t.tolist())
    assert total[1] == 40
    assert total.dtype == torch.float64


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_shares_of_processes_add_up_to_the_whole(world_size: int) -> None:
    whole, _ = measured()
    shares = [measured(rank, world_size) for rank in range(world_size)]
    torch.testing.assert_close(sum(total for total, _ in shares), whole)
    # Sharded networks wait for one another: all compute equally often.
    assert len({len(loss.calls) for _, loss in shares}) == 1


def test_a_second_time_gives_the_same_and_ignores_the_global_generator() -> None:
    torch.manual_seed(1)
    first = measured()[0]
    torch.manual_seed(2)
    assert torch.equal(measured()[0], first)


def test_the_bound_is_of_images_spread_over_the_data(tiny_unet: Callable) -> None:
    scheduler = DDPMScheduler(12)
    unet = tiny_unet().eval()
    data = image_data()
    few = validation_bound(unet, scheduler, data, num_images=4)
    assert few.num_images == 4
    again = validation_bound(unet, scheduler, data.subset([0, 10, 20, 30]), num_images=9)
    assert few.bits_per_dim == again.bits_per_dim
    assert validation_bound(unet, scheduler, data, num_images=100).num_images == 40
