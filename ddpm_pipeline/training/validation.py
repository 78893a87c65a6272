"""Measuring held-out images: their loss and bits/dim, with the same draws in every run.

Neither the timesteps nor the noise depend on the run's seed, so that runs compare.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ddpm_pipeline.common import moved, stream_generator
from ddpm_pipeline.data import ImageData
from ddpm_pipeline.diffusion import low_discrepancy_timesteps
from ddpm_pipeline.likelihood import units_of, variational_bound

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ddpm_pipeline.likelihood import BoundReport
    from ddpm_pipeline.networks import Denoiser
    from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["validation_bound", "validation_loss"]


# Forward passes per image, beside the decoder's.
_BOUND_SAMPLES = 8

_Losses = Callable[[Tensor, Tensor | None, Tensor, Tensor], Tensor]


@torch.no_grad()
def validation_loss(
    loss: _Losses,
    data: ImageData,
    *,
    num_train_timesteps: int,
    batch_size: int,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
) -> Tensor:
    """Sum the losses over this process's share of the data.

    Arguments:
        loss: f(x_0, labels, eps, t) -> losses of shape (B,).
        data: The held-out images.
        num_train_timesteps: T, the number of steps of the noise schedule.
        batch_size: Images of one forward pass.
        device: Where to compute.
        rank, world_size: This process among all that share the data.
    Returns:
        (sum of the losses, number of images), float64, on the device.
    """
    t = low_discrepancy_timesteps(
        num_train_timesteps, len(data), stream_generator("validation", 0)
    )
    # In their order a class or a folder would meet only some of the timesteps.
    t = t[torch.randperm(len(t), generator=stream_generator("validation", 1))]
    total = torch.zeros(2, dtype=torch.float64, device=device)
    batches = torch.arange(len(data)).split(batch_size)
    for first in range(0, len(batches), world_size):
        # A process whose turn is past the end computes too: a sharded network needs all of them.
        i = min(first + rank, len(batches) - 1)
        images, labels = data.batch(batches[i])
        x_0 = data.model_values(moved(images, device))
        noise = stream_generator("validation", 2, i)
        eps = moved(torch.randn(x_0.shape, generator=noise), device)
        labels = None if labels is None else moved(labels, device)
        losses = loss(x_0, labels, eps, t[batches[i]])
        if first + rank == i:
            total[0] += losses.double().sum()
            total[1] += len(losses)
    return total


def validation_bound(
    model: Denoiser,
    scheduler: DDPMScheduler,
    data: ImageData,
    *,
    num_images: int,
    accelerator: Accelerator | None = None,
) -> BoundReport:
    """Estimate the variational bound on some of the images, without bias.

    Arguments:
        model: The network.
        scheduler: Its scheduler.
        data: The held-out images.
        num_images: How many to measure, spread evenly over the data; all if there are fewer.
        accelerator: Shares the work among its processes, which all get the same report.
    """
    count = min(num_images, len(data))
    images, labels = data.batch(torch.arange(count) * len(data) // count)
    return variational_bound(
        model,
        scheduler,
        data.model_values(images),
        class_labels=labels,
        **units_of(data.scale),
        num_timestep_samples=min(_BOUND_SAMPLES, len(scheduler) - 1),
        generator=stream_generator("bound", 0),
        eta=1,  # whatever solver a model that is trained further was saved with
        accelerator=accelerator,
    )
