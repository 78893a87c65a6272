r"""The U-Net as sampling calls it: guided by what it is told, in float32, in calls of one size.

Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598) with weight w uses the last class
embedding as the empty label, and zeros in the place of a condition:

.. math:: \tilde f = f(x_t, t, \varnothing) + w\,(f(x_t, t, c) - f(x_t, t, \varnothing))

Another model g in the place of the network without its labels, such as an earlier one, is
autoguidance (Karras et al. 2024, arXiv:2406.02507). Either may be left out of some timesteps
(Kynkäänniemi et al. 2024, arXiv:2404.07724), which then cost one call and not two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from diffusers import UNet2DModel
from torch import Tensor

from ddpm_pipeline.networks import (
    FastForward,
    Told,
    dtype_of,
    joined_rows,
    network_inputs,
    unconditional,
)
from ddpm_pipeline.pipelines.guides import GuideStep

__all__ = ["GuidedNetwork", "ModelGuidedNetwork", "Network", "by_timestep", "in_turn"]

Network = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class GuidedNetwork:
    """A U-Net with the labels and the guidance of one batch.

    Arguments:
        unet: The network.
        forward: How it is called.
        labels: Classes, int64, shape (B,), or a condition that is ready; None without either.
        guidance_scale: w; 1 is no guidance. Other weights take the output with the labels and
            without: in one call where there is room for both, else in two.
        call_rows: Rows of every call, since kernels for other numbers round differently: smaller
            batches are filled up with copies of their first image. None calls it with the B rows.
        most_rows: What a call may have at most, where call_rows is None.
    """

    unet: UNet2DModel
    forward: FastForward
    labels: Told = None
    guidance_scale: float = 1.0
    call_rows: int | None = None
    most_rows: int | None = None

    def __call__(self, image: Tensor, t: Tensor) -> Tensor:
        """Compute the output at x_t, in float32."""
        image = image.to(dtype_of(self.unet, image.dtype))
        if self.labels is None or self.guidance_scale == 1:
            return self._output(image, t, self.labels)
        empty = unconditional(self.unet, self.labels)
        if self._calls_once(image):
            both = self._output(torch.cat([image, image]), t, joined_rows([self.labels, empty]))
            guided, unguided = both.chunk(2)
        else:
            guided = self._output(image, t, self.labels)
            unguided = self._output(image, t, empty)
        return unguided + self.guidance_scale * (guided - unguided)

    def _calls_once(self, image: Tensor) -> bool:
        """Tell whether both labels share a call: where that changes no bit, or on a GPU."""
        if self.call_rows is not None:
            return 2 * len(image) <= self.call_rows
        fits = self.most_rows is None or 2 * len(image) <= self.most_rows
        return fits and image.device.type != "cpu"

    def _output(self, image: Tensor, t: Tensor, told: Told) -> Tensor:
        rows = len(image)
        x, labels = network_inputs(self.unet, image, told)
        if self.call_rows is not None and rows < self.call_rows:
            x = _filled_up(x, self.call_rows)
            labels = None if labels is None else _filled_up(labels, self.call_rows)
        return self.forward(x, t, labels)[:rows].float()


@dataclass(frozen=True, eq=False)
class ModelGuidedNetwork:
    """A network that another guides, at one timestep.

    Arguments:
        own: The network, which nothing guides yet.
        guide: The other.
        guidance_scale: w.
        step: How the guide is asked.
        t: The step's t on the device; None for that of the network.
    """

    own: GuidedNetwork
    guide: GuidedNetwork
    guidance_scale: float
    step: GuideStep
    t: Tensor | None = None

    def __call__(self, image: Tensor, t: Tensor) -> Tensor:
        """Compute the guided output at x_t, in float32; a variance half is the network's own."""
        channels = image.shape[1]
        output = self.own(image, t)
        guess = self.guide(image, t if self.t is None else self.t)[:, :channels]
        if self.step.of_x != 0 or self.step.of_y != 1:
            guess = self.step.of_x * image + self.step.of_y * guess
        guided = guess + self.guidance_scale * (output[:, :channels] - guess)
        return torch.cat([guided, output[:, channels:]], dim=1)


def in_turn(networks: Iterable[Network]) -> Network:
    """Give what calls the first network when it is first called, then the second, and so on."""
    left = iter(networks)

    def call(image: Tensor, t: Tensor) -> Tensor:
        network = next(left)
        return network(image, t)

    return call


def by_timestep(networks: Mapping[float, Network]) -> Network:
    """Give what calls at each timestep, which may be no whole one, its network, in any order."""

    def call(image: Tensor, t: Tensor) -> Tensor:
        return networks[float(t)](image, t)

    return call


def _filled_up(tensor: Tensor, rows: int) -> Tensor:
    copies = tensor[:1].expand(rows - len(tensor), *tensor.shape[1:])
    return torch.cat([tensor, copies])
