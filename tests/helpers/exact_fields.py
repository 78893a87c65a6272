"""Networks of fields whose likelihood has a closed form, called as ``UNet2DModel`` is."""

from __future__ import annotations

import torch
from diffusers import UNet2DModel
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

__all__ = ["GaussianField", "PointMass"]


class GaussianField(torch.nn.Module):
    """E[x_0 | x_t] of independent Gaussian elements, mean and variance (C, H, W) or alike."""

    def __init__(self, alpha_bar: Tensor, mean: Tensor, variance: Tensor) -> None:
        super().__init__()
        self.register_buffer("alpha_bar", alpha_bar.double())
        self.register_buffer("mean", mean.double())
        self.register_buffer("variance", variance.double())

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        class_labels: None = None,  # noqa: ARG002 (as UNet2DModel)
        return_dict: bool = True,  # noqa: ARG002
    ) -> UNet2DOutput:
        """Predict x_0, by conjugacy."""
        signal = self.alpha_bar[timestep].view(-1, 1, 1, 1)
        noise, x = 1 - signal, sample.double()
        gain = signal.sqrt() * self.variance / (signal * self.variance + noise)
        found = self.mean + gain * (x - signal.sqrt() * self.mean)
        return UNet2DOutput(sample=found.to(sample.dtype))

    def error(self) -> Tensor:
        """Give the mean of Var(x_0 | x_t) over elements at every timestep, (T,)."""
        signal = self.alpha_bar.view(-1, 1, 1, 1)
        left = self.variance * (1 - signal) / (signal * self.variance + 1 - signal)
        return left.flatten(1).mean(1)


class PointMass(UNet2DModel):
    """The exact network of one image, as x_0 or as v = sqrt(abar) eps - sqrt(1 - abar) x_0."""

    def keep(self, x_0: Tensor, alpha_bar: Tensor | None = None) -> PointMass:
        """Give it its image (C, H, W), and the schedule of v."""
        self.register_buffer("x_0", x_0)
        self.register_buffer("alpha_bar", alpha_bar)
        return self

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        class_labels: None = None,  # noqa: ARG002 (as UNet2DModel)
        return_dict: bool = True,  # noqa: ARG002
    ) -> UNet2DOutput:
        """Predict it."""
        x_0 = self.x_0.expand_as(sample)
        if self.alpha_bar is None:
            return UNet2DOutput(sample=x_0)
        signal = self.alpha_bar[timestep].view(-1, 1, 1, 1).double()
        eps = (sample.double() - signal.sqrt() * x_0) / (1 - signal).sqrt()
        return UNet2DOutput(sample=(signal.sqrt() * eps - (1 - signal).sqrt() * x_0).float())
