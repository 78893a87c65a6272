"""A real U-Net that is small enough to call in a millisecond or two."""

from __future__ import annotations

import torch
from diffusers import UNet2DModel

__all__ = ["make_tiny_unet"]


def make_tiny_unet(
    channels: int = 1,
    *,
    out_channels: int | None = None,
    sample_size: int = 8,
    seed: int = 0,
    **config: object,
) -> UNet2DModel:
    """Make a U-Net in eval mode; its weights follow from the seed."""
    defaults = {
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DModel(
            sample_size=sample_size,
            in_channels=channels,
            out_channels=out_channels or channels,
            **(defaults | config),
        )
    return unet.eval()
