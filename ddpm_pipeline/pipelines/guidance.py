r"""The U-Net as sampling calls it: guided by classes, in float32, in calls of one size.

Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598) with weight w uses the last class
embedding as the empty label:

.. math:: \tilde f = f(x_t, t, \varnothing) + w\,(f(x_t, t, c) - f(x_t, t, \varnothing))
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import UNet2DModel
from torch import Tensor

from ddpm_pipeline.networks import FastForward, dtype_of

__all__ = ["GuidedNetwork"]


@dataclass(frozen=True, eq=False)
class GuidedNetwork:
    """A U-Net with the labels and the guidance of one batch.

    Arguments:
        unet: The network.
        forward: How it is called.
        labels: Classes, int64, shape (B,); None for a model without classes.
        guidance_scale: w; 1 is no guidance. Other weights take the output with the labels and
            without: in one call where there is room for both, else in two.
        call_rows: Rows of every call, since kernels for other numbers round differently: smaller
            batches are filled up with copies of their first image. None calls it with the B rows.
        most_rows: What a call may have at most, where call_rows is None.
    """

    unet: UNet2DModel
    forward: FastForward
    labels: Tensor | None = None
    guidance_scale: float = 1.0
    call_rows: int | None = None
    most_rows: int | None = None

    def __call__(self, image: Tensor, t: Tensor) -> Tensor:
        """Compute the output at x_t, in float32."""
        image = image.to(dtype_of(self.unet, image.dtype))
        if self.labels is None or self.guidance_scale == 1:
            return self._output(image, t, self.labels)
        empty = torch.full_like(self.labels, self.unet.config.num_class_embeds - 1)
        if self._calls_once(image):
            both = self._output(torch.cat([image, image]), t, torch.cat([self.labels, empty]))
            conditional, unconditional = both.chunk(2)
        else:
            conditional = self._output(image, t, self.labels)
            unconditional = self._output(image, t, empty)
        return unconditional + self.guidance_scale * (conditional - unconditional)

    def _calls_once(self, image: Tensor) -> bool:
        """Tell whether both labels share a call: where that changes no bit, or on a GPU."""
        if self.call_rows is not None:
            return 2 * len(image) <= self.call_rows
        fits = self.most_rows is None or 2 * len(image) <= self.most_rows
        return fits and image.device.type != "cpu"

    def _output(self, image: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        rows = len(image)
        if self.call_rows is not None and rows < self.call_rows:
            image = _filled_up(image, self.call_rows)
            labels = None if labels is None else _filled_up(labels, self.call_rows)
        return self.forward(image, t, labels)[:rows].float()


def _filled_up(tensor: Tensor, rows: int) -> Tensor:
    copies = tensor[:1].expand(rows - len(tensor), *tensor.shape[1:])
    return torch.cat([tensor, copies])
