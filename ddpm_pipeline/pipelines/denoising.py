r"""The loop that takes an image down a scheduler's chain, one step at a time.

.. math::
    f = \text{network}(x_t, t), \qquad (x_s, \hat x_0) = \text{scheduler.step}(f, t, x_t)

Every step is given to the caller as it is taken:

    for step in denoise(network, scheduler, noise, scheduler.timesteps):
        step.t, step.image, step.predicted_x_0

It starts from any image at any timestep: from noise and the whole chain to draw, or from a noisy
image and the rest of the chain. All that samples builds on it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import torch
from diffusers import SchedulerMixin
from torch import Tensor

from ddpm_pipeline.common import moved
from ddpm_pipeline.diffusion import LEARNED_VARIANCES, check_eta
from ddpm_pipeline.schedulers import Generators

__all__ = ["DDPM_SCHEDULERS", "Step", "denoise", "known_x_0", "takes_variance"]


DDPM_SCHEDULERS = (diffusers.DDPMScheduler, diffusers.DDPMParallelScheduler)


@dataclass(frozen=True, eq=False)
class Step:
    """A step that was taken, from x_t to x_s.

    Arguments:
        index: The number of steps before it.
        t: The timestep that it left, as the scheduler has it.
        image: x_s, shape (B, C, H, W), from which the next step goes on.
        predicted_x_0: The prediction of x_0 at x_t; None if the scheduler gives none.
    """

    index: int
    t: Tensor
    image: Tensor
    predicted_x_0: Tensor | None


def denoise(
    network: Callable[[Tensor, Tensor], Tensor],
    scheduler: SchedulerMixin,
    image: Tensor,
    timesteps: Iterable[Tensor],
    *,
    generator: Generators = None,
    eta: float | None = None,
    edit: Callable[[Step], Tensor | None] | None = None,
) -> Iterator[Step]:
    """Take an image down a chain and yield every step.

    Arguments:
        network: From x_t, scaled as the scheduler wants it, and t, of shape () on its device, to
            the U-Net's output in float32, (B, C, H, W) or (B, 2C, H, W).
        scheduler: Whose ``set_timesteps`` was called; its ``step`` is called once for each t.
        image: x_t at the first of the timesteps, (B, C, H, W), in float32.
        timesteps: ``scheduler.timesteps``, or the rest of them from any timestep on.
        generator: Source of the steps' noise: one, or a list of one for each image.
        eta: Noise of DDIM's steps, 0 to 1, for schedulers whose ``step`` takes it.
        edit: Called with each step; the tensor that it returns, if any, takes the place of x_s:
            it is the ``image`` of the step that is yielded, and the next step goes on from it.
    Raises:
        ValueError: If eta is not allowed or the scheduler does not take it.
    """
    options = _step_options(scheduler, generator, eta)
    return _walk(network, scheduler, image, timesteps, options, edit)


@torch.no_grad()
def _walk(
    network: Callable[[Tensor, Tensor], Tensor],
    scheduler: SchedulerMixin,
    image: Tensor,
    timesteps: Iterable[Tensor],
    options: dict[str, Any],
    edit: Callable[[Step], Tensor | None] | None,
) -> Iterator[Step]:
    """Take every step of ``denoise``, whose ``step`` gets these options."""
    timesteps = list(timesteps)
    # Schedulers look their tables up by a t on the host, which networks would wait for.
    on_device = moved(torch.stack(timesteps), image.device).unbind() if timesteps else ()
    for index, (t, device_t) in enumerate(zip(timesteps, on_device, strict=True)):
        output = network(scheduler.scale_model_input(image, t), device_t)
        if not takes_variance(scheduler):
            output = output[:, : image.shape[1]]
        result = scheduler.step(output, t, image, **options)
        step = Step(index, t, result.prev_sample, getattr(result, "pred_original_sample", None))
        edited = None if edit is None else edit(step)
        if edited is not None:
            step = replace(step, image=edited)
        yield step
        image = step.image


def takes_variance(scheduler: SchedulerMixin) -> bool:
    """Tell whether ``step`` uses the variance half of an output of 2C channels."""
    return isinstance(scheduler, DDPM_SCHEDULERS) and scheduler.variance_type in LEARNED_VARIANCES


def _step_options(
    scheduler: SchedulerMixin, generator: Generators, eta: float | None
) -> dict[str, Any]:
    """Give ``step`` a generator and an eta if it takes them; refuse an eta that it does not."""
    parameters = inspect.signature(scheduler.step).parameters
    options: dict[str, Any] = {"generator": generator} if "generator" in parameters else {}
    if eta is None:
        return options
    if "eta" not in parameters:
        name = type(scheduler).__name__
        raise ValueError(f"eta cannot be chosen for a {name}, got {eta}; use a DDIMScheduler")
    check_eta(eta)  # DDIMScheduler takes any
    return {**options, "eta": eta}


def known_x_0(step: Step) -> Tensor:
    """Give what a step says of x_0.

    Raises:
        ValueError: If its scheduler gives no such prediction.
    """
    if step.predicted_x_0 is None:
        raise ValueError("progressive needs a scheduler that gives its predicted x_0")
    return step.predicted_x_0
