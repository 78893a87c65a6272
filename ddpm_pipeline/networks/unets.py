"""The UNet that training starts from, with a config made for the resolution.

=========  ==========================================================================
size       the side is halved until it is at most 8; widths at each level
=========  ==========================================================================
``small``  32, 64, 64, 128, 128, ... with one block each; 1.1 M parameters at 28 … 32
``base``   64, 128, 128, 256, 256, ... with two blocks each; 6.5 M at 28 … 32
``ddpm``   the UNets of Ho et al. 2020: 35.7 M up to 32 pixels, 113.7 M above
=========  ==========================================================================

``small`` and ``base`` attend at the last level only. With C classes the network has C + 1 class
embeddings, the last being the null class that label dropout puts in and guidance asks for.

The last layer of every residual branch, and of the network, starts at zero, so that branches grow
from nothing; in the code of Ho et al. 2020 their variance is 1e-10. Diffusers draws them like all
others.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["attention_warning", "fresh_unet", "unet_config"]


_LARGE_SIDE = 32  # of an image at which attention is slow
_LAST_LAYERS = (".conv2", ".to_out.0", "conv_out")  # of residual blocks, attention, the network


def unet_config(
    size: str,
    *,
    resolution: int,
    channels: int,
    out_channels: int | None = None,
    num_classes: int | None = None,
    dropout: float = 0,
) -> dict[str, Any]:
    """Choose the arguments of ``UNet2DModel`` for images (C, resolution, resolution).

    Arguments:
        size: small, base or ddpm.
        resolution: Side of the images.
        channels: C.
        out_channels: Of the output; C unless given, 2C for learned variances.
        num_classes: Classes without the null class; None for a network without.
        dropout: In residual blocks, 0 to 1.

    Raises:
        ValueError: If the resolution cannot be halved as often as the size asks for.
    """
    config = _SIZES[size](resolution)
    halvings = len(config["block_out_channels"]) - 1
    if resolution % 2**halvings:
        raise ValueError(
            f"resolution must be a multiple of {2**halvings} for model_size {size!r}, "
            f"got {resolution}"
        )
    return {
        "sample_size": resolution,
        "in_channels": channels,
        "out_channels": out_channels or channels,
        "dropout": dropout,
        "num_class_embeds": None if num_classes is None else num_classes + 1,
        **config,
    }


def fresh_unet(config: Mapping[str, Any]) -> UNet2DModel:
    """Make a UNet to train, drawn from torch's global generator, with last layers of zeros.

    Arguments:
        config: From ``unet_config``, or the config of any ``UNet2DModel``.
    """
    from diffusers import UNet2DModel

    unet = UNet2DModel.from_config(config)
    for name, layer in unet.named_modules():
        if name.endswith(_LAST_LAYERS):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    return unet


def attention_warning(resolution: int) -> str | None:
    """Warn of a resolution at which ``small`` and ``base`` attend at a large image, or give None.

    Attention takes time by the fourth power of the side.
    """
    side = _attention_side(resolution)
    if side <= _LARGE_SIDE:
        return None
    other = next(n for n in count(resolution) if _attention_side(n) <= _LARGE_SIDE)
    smaller = _attention_side(other)
    return (
        f"the UNet of resolution {resolution} attends at {side} x {side} places, to be halved no "
        f"further; that of {other} attends at {smaller} x {smaller}"
    )


def _attention_side(resolution: int) -> int:
    """Give the side of the last level, where ``small`` and ``base`` attend."""
    return resolution >> (len(_small_or_base(resolution, 1, 1)["block_out_channels"]) - 1)


def _halvings(resolution: int, smallest: int) -> int:
    """Count how often a side can be halved that stays even and ends at `smallest` or more."""
    halvings = 0
    while resolution % 2 == 0 and resolution // 2 >= smallest:
        resolution, halvings = resolution // 2, halvings + 1
    return halvings


def _small_or_base(resolution: int, width: int, layers: int) -> dict[str, Any]:
    """Lay out ``small`` and ``base``, which differ in their width and their blocks per level."""
    levels = 1 + _halvings(resolution, 4 if resolution < 16 else 7)
    widths = tuple(width * 2 ** ((level + 1) // 2) for level in range(levels))
    return _unet(widths, layers, attention={levels - 1}, norm_num_groups=16)


def _ddpm(resolution: int) -> dict[str, Any]:
    """Lay out the UNets of Ho et al. 2020, appendix B."""
    small = resolution <= 32
    widths = (128, 256, 256, 256) if small else (128, 128, 256, 256, 512, 512)
    attention = {1} if small else {4}
    return _unet(
        widths,
        2,
        attention,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        attention_head_dim=None,
    )


def _unet(
    widths: tuple[int, ...], layers: int, attention: set[int], **more: object
) -> dict[str, Any]:
    names = ["Attn" if level in attention else "" for level in range(len(widths))]
    return {
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": tuple(f"{name}DownBlock2D" for name in names),
        "up_block_types": tuple(f"{name}UpBlock2D" for name in reversed(names)),
        **more,
    }


_SIZES = {
    "small": lambda resolution: _small_or_base(resolution, 32, 1),
    "base": lambda resolution: _small_or_base(resolution, 64, 2),
    "ddpm": _ddpm,
}
