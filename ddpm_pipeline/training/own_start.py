"""A run of a network of one's own: ``train(config, unet=...)``.

A model of diffusers is saved with its pipeline. Of another module the weights are saved, as
``network.safetensors``, which ``module.load_state_dict(load_file(...))`` reads; no pipeline can be
opened of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from torch import nn

from ddpm_pipeline.common import as_resolution
from ddpm_pipeline.diffusion import LEARNED_VARIANCES
from ddpm_pipeline.networks import OwnNetwork, set_facts
from ddpm_pipeline.training.start import Start

if TYPE_CHECKING:
    from ddpm_pipeline.training.config import TrainingConfig
    from ddpm_pipeline.training.data import TrainingData

__all__ = ["OwnStart"]


class OwnStart(Start):
    """The network that the caller gives, which is trained in place.

    Arguments:
        unet: The network.
        config: Of the run.
    Raises:
        TypeError: If it is no module.
        ValueError: If the options name another network, or want what it cannot give.
    """

    def __init__(self, unet: nn.Module, config: TrainingConfig) -> None:
        if not isinstance(unet, nn.Module):
            raise TypeError(f"unet must be a torch.nn.Module, got a {type(unet).__name__}")
        for name in ("pretrained_model_name_or_path", "model_config_name_or_path"):
            if getattr(config, name) is not None:
                raise ValueError(f"give either unet or {name}, got both")
        self._is_plain = not (isinstance(unet, ModelMixin) and isinstance(unet, ConfigMixin))
        if self._is_plain:
            _check_plain(unet, config)
        _refuse_shared(unet)
        if config.augment and not isinstance(unet, UNet2DModel):
            raise ValueError(
                "augment needs a UNet2DModel, which is told of it beside its classes, got a "
                f"{type(unet).__name__}"
            )
        self._given = unet

    def unet(self, config: TrainingConfig, data: TrainingData) -> Any:  # noqa: ANN401
        """Give the network, if it is for such images."""
        if data.given is not None:
            raise ValueError(
                "condition_on and condition_vector do not work with an unet of one's own"
            )
        learned = config.variance_type in LEARNED_VARIANCES
        wanted = {
            "sample_size": config.resolution,
            "in_channels": data.channels,
            "out_channels": data.channels * (2 if learned else 1),
            "num_class_embeds": None if data.num_classes is None else data.num_classes + 1,
        }
        unet = self._given
        if self._is_plain:
            unet = OwnNetwork.around(unet, **wanted)
        else:
            from ddpm_pipeline.pipelines import check_network

            check_network(unet)
            for key, value in wanted.items():
                found = getattr(unet.config, key)
                if key == "sample_size" and found is not None:
                    found = as_resolution(found, key)
                if found != value:
                    raise ValueError(f"unet has {key}={found}, but training needs {value}")
        set_facts(unet, data.facts(config))
        return unet

    def state(self) -> dict[str, Any]:
        """Give the kind of network, which only the caller can make again."""
        return {"own_network": type(self._given).__name__}

    def describe(self, config: TrainingConfig, data: TrainingData) -> dict[str, str]:  # noqa: ARG002
        """Say what will be saved of it."""
        kind = type(self._given).__name__
        if not self._is_plain:
            return {"network": f"the {kind} that was given"}
        return {
            "network": f"the {kind} that was given, which is no model of diffusers: its weights "
            "are saved as network.safetensors, for load_state_dict, and no pipeline"
        }


def _check_plain(unet: nn.Module, config: TrainingConfig) -> None:
    """Refuse options that need more of a network than that it can be called.

    Raises:
        ValueError: If there are any; names the first.
    """
    kind = type(unet).__name__
    for name in ("push_to_hub", "post_hoc_steps"):
        if getattr(config, name):
            raise ValueError(
                f"{name} needs a model of diffusers, and unet is a {kind}, of which no pipeline "
                "can be saved"
            )
    if config.layer_decay != 1:
        raise ValueError(
            f"layer_decay={config.layer_decay} needs a model of diffusers, whose levels are known "
            f"by the names of its weights, and unet is a {kind}"
        )


def _refuse_shared(unet: nn.Module) -> None:
    """Refuse a network with weights that go by several names: averages are kept by name.

    Raises:
        ValueError: If there are any; names two.
    """
    seen: dict[tuple[torch.device, int], str] = {}
    for name, tensor in unet.state_dict().items():
        address = (tensor.device, tensor.untyped_storage().data_ptr())
        other = seen.setdefault(address, name)
        if tensor.numel() and tensor.device.type != "meta" and other != name:
            raise ValueError(
                f"unet must have weights of its own under each name, but {other} and {name} share "
                "theirs"
            )
