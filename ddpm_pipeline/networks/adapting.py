r"""A trained U-Net made to fit other images and classes: rules on its weights.

    adapted_unet(unet, sample_size=64, channels=3, rows=[0, 1, None, 2])

Grey images become colour ones, and colour ones grey, so that the network answers a colour image of
three like channels as it answers the grey one:

.. math::
    W_{in}^{(c)} = \tfrac13 W_{in}, \quad W_{out}^{(c)} = W_{out} \qquad\text{and}\qquad
    W_{in} = \textstyle\sum_c W_{in}^{(c)}, \quad W_{out} = \tfrac13 \sum_c W_{out}^{(c)}

A second half of output channels, for learned variances, is the constant that says the variance of
before. A class keeps the row of its embedding; new rows are drawn with the mean and the deviation
of those there are, or are zero in a network that knew no classes, which then begins as what it
was. A network that is to know no classes any more keeps one row for all images: the embedding is
added to that of the timestep, so that the row goes into the bias of the latter.

The channels of a picture that a network is to be conditioned on come after those of its images,
with kernels of zero, so that it begins as what it was. Numbers have no weights of their own that
could be zero: their embedding is added to that of the timestep. Told none, it begins as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ddpm_pipeline.common import PRIVATE_KEY
from ddpm_pipeline.networks.condition import image_channels, input_options

if TYPE_CHECKING:
    from diffusers import UNet2DModel
    from torch import Tensor

    from ddpm_pipeline.networks.conditioned_on import Conditioning

__all__ = ["adapted_unet", "downsampling", "network_of_config"]


_ROWS = "class_embedding.weight"
# The last of them names keys that diffusers would set back to their defaults.
_NOT_THE_NETWORKS = {"_name_or_path", PRIVATE_KEY, "_use_default_values"}
_TIME_BIAS = "time_embedding.linear_2.bias"

Weights = dict[str, "Tensor"]


def adapted_unet(
    unet: UNet2DModel,
    *,
    sample_size: int | None = None,
    channels: int | None = None,
    variance_output: float | None = None,
    rows: Sequence[int | None] | None = None,
    folded_row: int | None = None,
    dropout: float | None = None,
    conditioning: Conditioning | None = None,
) -> tuple[UNet2DModel, set[str]]:
    """Give a network for other images and classes, with the weights of this one.

    Arguments:
        unet: The network, which stays as it is.
        sample_size: Side of the images.
        channels: 1 or 3, where the network has the other.
        variance_output: What the second half of the output says at first; None leaves the number
            of outputs per channel alone.
        rows: For each class embedding that there is to be, the row of the present one, or None
            for a new one.
        folded_row: The class embedding that a network without classes is to have for all images.
        dropout: In residual blocks.
        conditioning: What a network that is conditioned on nothing is to be conditioned on.
    Returns:
        The network, ``unet`` itself if nothing changes, and the names of the weights that are new
        or were put together from others.
    """
    config = {k: v for k, v in unet.config.items() if k not in _NOT_THE_NETWORKS}
    weights, changed = dict(unet.state_dict()), set()
    before = image_channels(unet)
    if channels is not None and channels != before:
        changed |= _change_channels(config, weights, before, channels)
    if variance_output is not None:
        changed |= _add_variances(config, weights, variance_output)
    if rows is not None and list(rows) != list(range(config.get("num_class_embeds") or 0)):
        changed |= _change_rows(config, weights, rows)
    if folded_row is not None:
        changed |= _fold_row(config, weights, folded_row)
    if conditioning is not None:
        changed |= _add_condition(config, weights, conditioning)
    asked = {"sample_size": sample_size, "dropout": dropout}
    config |= {key: value for key, value in asked.items() if value is not None}
    if not changed and all(unet.config.get(key) == value for key, value in config.items()):
        return unet, changed
    return network_of_config(type(unet), config, weights), changed


def network_of_config(
    kind: type[UNet2DModel], config: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> UNet2DModel:
    """Make a network of these weights on the CPU, in plain memory order."""
    with torch.device("meta"):
        unet = kind.from_config(config)
    copies = {name: value.detach().to("cpu").contiguous() for name, value in weights.items()}
    unet.load_state_dict(copies, assign=True)
    return unet


def downsampling(unet: UNet2DModel) -> int:
    """Give the number that the side of an image must be a multiple of."""
    halvings = len(unet.config.block_out_channels) - 1
    return 2**halvings


def _change_channels(
    config: dict[str, Any], weights: Weights, before: int, channels: int
) -> set[str]:
    """Take grey images for colour ones, or colour images for grey ones."""
    images, picture = weights["conv_in.weight"].tensor_split([before], 1)
    kernel, bias = weights["conv_out.weight"], weights["conv_out.bias"]
    halves = len(bias) // before
    kernel = kernel.unflatten(0, (halves, before))
    bias = bias.unflatten(0, (halves, before))
    if (before, channels) == (1, 3):
        images = images.repeat(1, 3, 1, 1) / 3
        kernel, bias = kernel.repeat_interleave(3, 1), bias.repeat_interleave(3, 1)
    elif (before, channels) == (3, 1):
        images = images.sum(1, keepdim=True)
        kernel, bias = kernel.mean(1, keepdim=True), bias.mean(1, keepdim=True)
    else:
        raise ValueError(
            f"channels={channels} cannot be made of a model of {before}: there are rules for 1 "
            "and 3 alone"
        )
    weights["conv_in.weight"] = torch.cat([images, picture], 1)
    weights["conv_out.weight"] = kernel.flatten(0, 1)
    weights["conv_out.bias"] = bias.flatten(0, 1)
    inputs = config["in_channels"] - before + channels
    config |= {"in_channels": inputs, "out_channels": halves * channels}
    return {"conv_in.weight", "conv_out.weight", "conv_out.bias"}


def _add_variances(config: dict[str, Any], weights: Weights, output: float) -> set[str]:
    """Add a second half of output channels, which says one number."""
    kernel, bias = weights["conv_out.weight"], weights["conv_out.bias"]
    weights["conv_out.weight"] = torch.cat([kernel, torch.zeros_like(kernel)])
    weights["conv_out.bias"] = torch.cat([bias, torch.full_like(bias, output)])
    config["out_channels"] = 2 * config["out_channels"]
    return {"conv_out.weight", "conv_out.bias"}


def _change_rows(config: dict[str, Any], weights: Weights, rows: Sequence[int | None]) -> set[str]:
    """Put the class embeddings into another order, with new ones among them."""
    known = weights.get(_ROWS)
    if known is None:
        bias = weights[_TIME_BIAS]
        weights[_ROWS] = bias.new_zeros(len(rows), len(bias))
    else:
        mean, deviation = known.mean(0), known.std(0, unbiased=False)
        drawn = mean + deviation * torch.randn(len(rows), len(mean)).to(known)
        kept = [drawn[i] if row is None else known[row] for i, row in enumerate(rows)]
        weights[_ROWS] = torch.stack(kept)
    config["num_class_embeds"] = len(rows)
    return {_ROWS}


def _fold_row(config: dict[str, Any], weights: Weights, row: int) -> set[str]:
    """Give every image the same class embedding, and the network no classes."""
    weights[_TIME_BIAS] = weights[_TIME_BIAS] + weights.pop(_ROWS)[row]
    config["num_class_embeds"] = None
    return {_TIME_BIAS}


def _add_condition(
    config: dict[str, Any], weights: Weights, conditioning: Conditioning
) -> set[str]:
    """Add input channels with kernels of zero, and a place for the embeddings of numbers."""
    config |= input_options(config["in_channels"], conditioning)
    if not conditioning.channels:
        return set()
    kernel = weights["conv_in.weight"]
    picture = kernel.new_zeros(len(kernel), conditioning.channels, *kernel.shape[2:])
    weights["conv_in.weight"] = torch.cat([kernel, picture], 1)
    return {"conv_in.weight"}
