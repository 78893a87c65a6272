"""What is known of images, as callers of ``restore`` say it, in the range of models.

    known = Known.of(unet, y, "blur:1.5", noise_std=0.02, mask=None)
    known.measured(*part)           of a share of ``known.tensors()``

A measurement y of images u in [0, 1] tells as much of 2 u - 1: A is linear, so that 2 y - A 1 is
that of these, and its noise is twice as large.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import UNet2DModel
from torch import Tensor

from ddpm_pipeline.common import moved
from ddpm_pipeline.networks import device_of, image_channels
from ddpm_pipeline.pipelines.tasks.given import (
    GivenImages,
    check_bytes,
    check_reach,
    given_hole,
    given_measurement,
    image_size,
)
from ddpm_pipeline.pipelines.tasks.moments import Measurement
from ddpm_pipeline.pipelines.tasks.operators import (
    LinearOperator,
    check_operator,
    missing,
    named_operator,
)

__all__ = ["Known"]


@dataclass(frozen=True, eq=False)
class Known:
    """A measurement of N images.

    Arguments:
        operator: A; of "missing" with the first holes only.
        y: As it was given, float32 (N, *).
        noise_std: sigma, in the units of y.
        shape: Of an image, (C, H, W).
        hole: Of "missing", (N, 1, H, W); None for others.
    """

    operator: LinearOperator
    y: Tensor
    noise_std: float
    shape: tuple[int, int, int]
    hole: Tensor | None

    @classmethod
    def of(
        cls,
        unet: UNet2DModel,
        y: GivenImages,
        operator: str | LinearOperator | tuple[Callable, Callable],
        noise_std: float,
        mask: GivenImages | None,
    ) -> Known:
        """Check what a caller says; arguments as for ``restore``.

        Raises:
            TypeError, ValueError: If any of it is not allowed.
        """
        check_bytes(unet)
        size = image_size(unet)
        if size is None:
            raise ValueError(
                "the model has no sample_size that says how large its images are; "
                "unet.register_to_config(sample_size=...) gives it one"
            )
        if isinstance(noise_std, bool) or not isinstance(noise_std, int | float):
            raise ValueError(f"noise_std must be a number of at least 0, got {noise_std!r}")
        if not 0 <= noise_std < math.inf:
            raise ValueError(f"noise_std must be at least 0, got {noise_std}")
        channels = image_channels(unet)
        is_missing = operator == "missing"
        y = given_measurement(y, channels, noise_std, size, mask if is_missing else None)
        if isinstance(operator, str):
            check_reach(y, noise_std)
        if mask is not None and not is_missing:
            raise ValueError(f"mask is for operator 'missing', got operator={operator!r}")
        hole = None if mask is None else given_hole(mask, size, len(y))
        if hole is not None:
            y, hole = (x.expand(max(len(y), len(hole)), *x.shape[1:]) for x in (y, hole))
        made = _operator(operator, size, None if hole is None else hole[:2])
        device = device_of(unet, torch.device("cpu"))
        sample = torch.zeros(min(2, len(y)), channels, *size, device=device)
        check_operator(made, sample, moved(y[:2], device), is_of_batch=hole is not None)
        return cls(made, y, float(noise_std), (channels, *size), hole)

    def tensors(self) -> list[Tensor]:
        """Give what is split among shares: a tensor of the images' shape first."""
        count = len(self.y)
        images = torch.zeros(1, *self.shape).expand(count, *self.shape)
        return [images, self.y] + ([] if self.hole is None else [self.hole])

    def measured(self, images: Tensor, y: Tensor, hole: Tensor | None = None) -> Measurement:
        """Give a share's measurement, in the range of models."""
        operator = self.operator if hole is None else missing(hole)
        y = 2 * y - operator(torch.ones_like(images))
        return Measurement(operator, y if hole is None else operator(y), 2 * self.noise_std)


def _operator(
    operator: str | LinearOperator | tuple[Callable, Callable],
    size: tuple[int, int],
    hole: Tensor | None,
) -> LinearOperator:
    if isinstance(operator, LinearOperator):
        return operator
    if isinstance(operator, str):
        return named_operator(operator, size, hole)
    if callable(operator):
        return LinearOperator(operator)
    if isinstance(operator, tuple | list) and len(operator) == 2 and all(map(callable, operator)):
        return LinearOperator(*operator)
    raise TypeError(
        "operator must be a name, a LinearOperator, a function or a pair (forward, adjoint) of "
        f"functions, got {operator!r}"
    )
