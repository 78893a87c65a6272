"""Drawing noise as diffusers lets it be asked for, and handing over what a step gives."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ddpm_pipeline.common import moved

__all__ = ["Generators", "StepOutput", "at_least_float32", "scaled_noise", "standard_normal"]

Generators = torch.Generator | list[torch.Generator] | None
"""Source of noise: one for a batch, or a list of one for each example."""


class StepOutput(DDPMSchedulerOutput):
    """diffusers' output without its generic constructor, which would cost a tenth of a step."""

    def __init__(self, prev_sample: Tensor, pred_original_sample: Tensor) -> None:
        values = {"prev_sample": prev_sample, "pred_original_sample": pred_original_sample}
        OrderedDict.__init__(self, values)
        self.__dict__.update(values)


def scaled_noise(x: Tensor, std: float | Tensor, generator: Generators) -> Tensor:
    """Draw normal noise of a standard deviation, in the shape, dtype and device of x.

    Raises:
        ValueError: If there is a list of generators, but not one for each example.
    """
    if isinstance(generator, list) and len(generator) != len(x):
        raise ValueError(f"generator must be one or a list of {len(x)}, got {len(generator)}")
    is_simple = generator is None or getattr(generator, "device", None) == x.device
    if is_simple and not isinstance(std, Tensor):
        return x.new_empty(x.shape).normal_(0, std, generator=generator)
    return std * standard_normal(x.shape, generator, x.device, x.dtype)


def standard_normal(
    shape: Sequence[int],
    generator: Generators,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Draw standard normal noise, with the numbers that diffusers' ``randn_tensor`` would give.

    With a generator for each example there is one call for each, which writes in its place, and
    generators of the host cost one copy to the device for all of them.

    Arguments:
        shape: (B, *).
        generator: One, a list of B of them, or None.
        device: Where the noise is wanted.
        dtype: Of the noise.
    Raises:
        ValueError: If a generator of a GPU is to draw for the host.
    """
    host = torch.device("cpu")
    sources = {g.device for g in generator} if isinstance(generator, list) else set()
    if len(sources) != 1 or (device == host and sources != {host}):
        return randn_tensor(shape, generator=generator, device=device, dtype=dtype)
    noise = torch.empty(shape, dtype=dtype, device=sources.pop())
    for row, own in zip(noise.unbind(), generator, strict=True):
        row.normal_(generator=own)
    return moved(noise, device)


def at_least_float32(x: Tensor) -> Tensor:
    """Widen half precision; leave float32 and float64 as they are."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
