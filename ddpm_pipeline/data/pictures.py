"""Several images in one picture, to be looked at: a grid, a strip, a sheet with captions.

    image_grid(images)                               samples, on grey
    reconstruction_strip(reconstructions, x_0)       what a model sees of each image, step by step
    nearest_picture(images, neighbors)               each sample above what it may be a copy of
    contact_sheet(images, bits_per_dim, numbers)     the most and the least likely images

All take bytes but the strip, which takes images in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ddpm_pipeline.data.pixels import as_picture, shown_bands

__all__ = ["contact_sheet", "image_grid", "nearest_picture", "reconstruction_strip"]

_STRIP_GAP = 2
_CELL, _CAPTION, _MARGIN = 72, 14, 4
_GREY = 128


def image_grid(
    images: np.ndarray,
    columns: int | None = None,
    gap: int = 1,
    bands: Sequence[int] | None = None,
) -> Image.Image:
    """Lay images side by side on grey.

    Arguments:
        images: uint8 (N, H, W, C).
        columns: How many in a row; None makes the grid nearly square.
        gap: Width of the grey lines.
        bands: The channels that are shown, as for ``shown_bands``.
    """
    if (shown := shown_bands(images.shape[-1], bands)) is not None:
        images = images[..., list(shown)]
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, channels)
    canvas = np.full(shape, _GREY, np.uint8)
    for i, image in enumerate(images):
        y, x = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        canvas[y : y + height, x : x + width] = image
    return as_picture(canvas)


def reconstruction_strip(reconstructions: Tensor, x_0: Tensor) -> Image.Image:
    """Lay out each image in a row, from its noisiest timestep to the original at the end.

    Arguments:
        reconstructions: Of ``progressive_reconstructions``, shape (K, B, C, H, W).
        x_0: The images, shape (B, C, H, W).
    """
    columns = torch.cat([reconstructions, x_0[None].to(reconstructions)])
    pixels = ((columns + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
    # (K + 1, B, C, H, W) to (B H, (K + 1) W, C), with grey between the images.
    padded = torch.nn.functional.pad(pixels, (0, _STRIP_GAP, 0, _STRIP_GAP), value=_GREY)
    K, B, C, H, W = padded.shape
    sheet = padded.permute(1, 3, 0, 4, 2).reshape(B * H, K * W, C).numpy()
    return as_picture(sheet)


def nearest_picture(images: Tensor, neighbors: list[Tensor], gap: int = 4) -> Image.Image:
    """Lay images in a row, and their neighbours in rows below a grey line.

    Arguments:
        images: uint8 (Q, C, H, W).
        neighbors: The nearest of each, the second nearest of each and so on, like `images`.
        gap: Height of the line.
    """
    first, *others = (_row(images) for images in (images, *neighbors))
    line = np.full((gap, *first.shape[1:]), _GREY, np.uint8)
    canvas = np.concatenate([first, line, *others])
    return as_picture(canvas)


def _row(images: Tensor) -> np.ndarray:
    """Give images (Q, C, H, W) side by side, (H, Q W, C)."""
    return torch.cat(list(images), 2).permute(1, 2, 0).numpy()


def contact_sheet(
    images: Tensor, bits_per_dim: Sequence[float], numbers: Sequence[int], columns: int = 8
) -> Image.Image:
    """Lay out images in two halves under titles, each with its number and bits/dim below it.

    Arguments:
        images: uint8, shape (2M, C, H, W): the most likely first, then the least likely.
        bits_per_dim: Of each image.
        numbers: Which image each is.
        columns: Images in a row.
    """
    half = len(images) // 2
    cell = max(_CELL, *images.shape[2:])
    width, height = cell + _MARGIN, cell + _CAPTION + _MARGIN
    rows = math.ceil(half / columns)
    blocks = [("most likely", 0), ("least likely", half)]
    block_height = _CAPTION + _MARGIN + rows * height
    sheet = Image.new("RGB", (columns * width + _MARGIN, 2 * block_height + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for b, (title, first) in enumerate(blocks):
        top = b * block_height + _MARGIN
        draw.text((_MARGIN, top), f"{title}: image number, bits/dim", fill="black")
        for i in range(half):
            x = _MARGIN + i % columns * width
            y = top + _CAPTION + i // columns * height
            k = first + i
            picture = as_picture(images[k].permute(1, 2, 0).numpy())
            sheet.paste(picture.resize((cell, cell), Image.Resampling.NEAREST), (x, y))
            draw.text((x, y + cell + 1), f"{numbers[k]}  {bits_per_dim[k]:.2f}", fill="black")
    return sheet
