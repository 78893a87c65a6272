"""TODO pipelines.denoising."""

import inspect
from typing import Any

import diffusers
import torch
from diffusers import SchedulerMixin
from torch import Tensor

from ddpm_pipeline.diffusion import LEARNED_VARIANCES, check_eta
from ddpm_pipeline.networks import FastForward
from ddpm_pipeline.pipelines.inputs import Generators

__all__ = []


def run_rows(
    fast: FastForward, image: Tensor, t: Tensor, labels: Tensor | None, padded_rows: int | None
) -> Tensor:
    """The U-Net's output for the rows of image, computed in a call of padded_rows if given."""
    rows = len(image)
    if padded_rows is not None and rows < padded_rows:
        image = torch.cat([image, image[:1].expand(padded_rows - rows, *image.shape[1:])])
        if labels is not None:
            labels = torch.cat([labels, labels[:1].expand(padded_rows - rows)])
    with fast.settings(image.device):
        output = fast.network(image, t, class_labels=labels).sample
    return output[:rows].float()


def predicted_x_0(tensors: dict[str, Tensor]) -> Tensor:
    if "pred_original_sample" not in tensors:
        raise ValueError("progressive needs a scheduler that gives its predicted x_0")
    return tensors["pred_original_sample"]


DDPM_SCHEDULERS = (diffusers.DDPMScheduler, diffusers.DDPMParallelScheduler)


def takes_variance(scheduler: SchedulerMixin) -> bool:
    """Whether ``step`` uses the variance half of a 2C-channel output."""
    return isinstance(scheduler, DDPM_SCHEDULERS) and scheduler.variance_type in LEARNED_VARIANCES


def step_options(
    scheduler: SchedulerMixin, generator: Generators, eta: float | None
) -> dict[str, Any]:
    """What of generator and eta the scheduler's step takes."""
    parameters = inspect.signature(scheduler.step).parameters
    if eta is not None and "eta" not in parameters:
        name = type(scheduler).__name__
        raise ValueError(f"eta cannot be chosen for a {name}, got {eta}; use a DDIMScheduler")
    if eta is not None:
        check_eta(eta)  # DDIMScheduler takes any
    options = {"generator": generator} if "generator" in parameters else {}
    return options if eta is None else {**options, "eta": eta}
