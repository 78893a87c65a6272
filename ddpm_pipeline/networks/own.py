"""A network of one's own in the place of a ``UNet2DModel``.

    network = OwnNetwork.around(module, sample_size=32, in_channels=3, out_channels=3)
    network(x_t, t, class_labels).sample

Any module that is called as module(x_t, t), or as module(x_t, t, class_labels=...) where there are
classes, and answers with a tensor, a tuple or an object with ``sample``. diffusers cannot build it
again of a config, so that a saved pipeline could not hold it; its weights are saved as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OwnNetwork"]


class OwnNetwork(ModelMixin, ConfigMixin):
    """A module behind the call and the config of a ``UNet2DModel``; see ``around``."""

    @register_to_config
    def __init__(
        self,
        sample_size: int,  # noqa: ARG002 (the config has it)
        in_channels: int,  # noqa: ARG002 (the config has it)
        out_channels: int,  # noqa: ARG002 (the config has it)
        num_class_embeds: int | None = None,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.network: nn.Module = nn.Identity()

    @classmethod
    def around(
        cls,
        network: nn.Module,
        *,
        sample_size: int,
        in_channels: int,
        out_channels: int,
        num_class_embeds: int | None = None,
    ) -> Self:
        """Put a module, which stays what it is, behind the call of a ``UNet2DModel``.

        Arguments:
            network: The module.
            sample_size, in_channels, out_channels, num_class_embeds: As of ``UNet2DModel``.
        """
        made = cls(sample_size, in_channels, out_channels, num_class_embeds)
        made.network = network
        return made

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        """Call the module."""
        labels = {} if class_labels is None else {"class_labels": class_labels}
        output = self.network(sample, timestep, **labels)
        output = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
        return UNet2DOutput(sample=output) if return_dict else (output,)
