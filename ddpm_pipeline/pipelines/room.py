"""Calls of the network no larger than their work, and refused where they cannot fit.

    rows = filled_rows(max_batch_size, count)        how many rows every call is filled up to
    check_room(unet, rows, device)

A call is filled up with rows that nobody asked for, so that an image does not depend on what else
is drawn with it. Beyond ``_ALWAYS_FILLED`` rows that is given up where the images are far fewer:
rows cost a CPU what images cost, and a GPU next to nothing up to about a million elements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddpm_pipeline.common import check_memory

if TYPE_CHECKING:
    import torch
    from diffusers import UNet2DModel

__all__ = ["check_room", "filled_rows"]

_ALWAYS_FILLED = {"cpu": 256, "mps": 256}
_ALWAYS_FILLED_ELSEWHERE = 16384


def filled_rows(most: int, count: int, device: torch.device) -> int:
    """Give how many rows each call of a request is filled up to.

    Arguments:
        most: Rows that a call may have.
        count: Images of the request.
        device: Of the network.
    Returns:
        ``most``, or if that is over 256 on a CPU and 16,384 on a GPU, no more than the power of
        two from twice the images on, since guidance calls for each of them twice.
    """
    always = _ALWAYS_FILLED.get(device.type, _ALWAYS_FILLED_ELSEWHERE)
    return min(most, max(always, 1 << (2 * count - 1).bit_length()))


def check_room(unet: UNet2DModel, rows: int, device: torch.device) -> None:
    """Refuse a call that takes more memory than there is, before anything is drawn.

    On a GPU its own error says so at once, and takes nothing else down.

    Arguments:
        rows: Of the call.
    Raises:
        ValueError: With the estimate, which is of the input and of what the first layer makes of
            it alone.
    """
    size = unet.config.sample_size
    if device.type != "cpu" or size is None:
        return
    height, width = (size, size) if isinstance(size, int) else size
    first = getattr(unet.config, "block_out_channels", None) or (0,)
    channels = unet.config.in_channels + first[0]
    check_memory(
        4 * rows * channels * height * width,
        f"a call of the network with {rows:,} rows",
        "give a smaller batch_size",
    )
