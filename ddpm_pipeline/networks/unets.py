"""The UNet that training starts from: made for the resolution, or read from a config.

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

from typing import Any

__all__ = ["UNET_SIZES", "unet_config"]


LARGE_SIDE = 32
LAST_LAYERS = (".conv2", ".to_out.0", "conv_out")  # of residual blocks, attention, the network


def _halvings(resolution: int, smallest: int) -> int:
    """How often the side can be halved while it stays even and ends at `smallest` or more."""
    count = 0
    while resolution % 2 == 0 and resolution // 2 >= smallest:
        resolution, count = resolution // 2, count + 1
    return count


def _ours(resolution: int, width: int, layers: int) -> dict[str, Any]:
    levels = 1 + _halvings(resolution, 4 if resolution < 16 else 7)
    widths = tuple(width * 2 ** ((level + 1) // 2) for level in range(levels))
    return _unet(widths, layers, attention={levels - 1}, norm_num_groups=16)


def _ddpm(resolution: int) -> dict[str, Any]:
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


UNET_SIZES = {
    "small": lambda resolution: _ours(resolution, 32, 1),
    "base": lambda resolution: _ours(resolution, 64, 2),
    "ddpm": _ddpm,
}


def unet_config(
    size: str,
    *,
    resolution: int,
    channels: int,
    out_channels: int | None = None,
    num_classes: int | None = None,
    dropout: float = 0,
) -> dict[str, Any]:
    """Arguments of ``UNet2DModel`` for images (C, resolution, resolution).

    Raises:
        ValueError: If the resolution cannot be halved as often as the size asks for.
    """
    config = UNET_SIZES[size](resolution)
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


def last_side(resolution: int) -> int:
    """The side of the last level, where ``small`` and ``base`` attend."""
    return resolution >> (len(_ours(resolution, 1, 1)["block_out_channels"]) - 1)
