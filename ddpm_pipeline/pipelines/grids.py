"""All images of a sampler in one picture, of any format that can hold it.

draw_grid(sampler, 16, Path("samples.png"))

Whether the format can is found out before an image is drawn, with a grey grid of the same size.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ddpm_pipeline.common import saving_options, write_bytes
from ddpm_pipeline.data import image_grid

if TYPE_CHECKING:
    from ddpm_pipeline.pipelines.sampling import ImageSampler

__all__ = ["check_format", "draw_grid"]


_GREY = 128
_TOLERANCE = 16  # of lossy formats


def draw_grid(sampler: ImageSampler, num_images: int, path: Path) -> None:
    """Draw images into one picture, which replaces what is there when it is whole.

    Arguments:
        sampler: Draws image i.
        num_images: How many.
        path: The picture, in the format that its name ends in; its folder is made.
    Raises:
        ValueError: If the format cannot hold the picture; nothing is drawn then.
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = getattr(sampler, "picture_bands", None)
    check_format(path, (num_images, *sampler.image_shape), bands)
    grid = image_grid(sampler(range(num_images)), bands=bands)
    write_bytes(path, _encoded(grid, path))


def check_format(
    path: Path, shape: tuple[int, int, int, int], bands: Sequence[int] | None = None
) -> None:
    """Refuse a picture whose format has no place for the channels or the size of a grid.

    Arguments:
        path: The picture.
        shape: Of its images, (N, H, W, C).
        bands: The channels that it shows; as for ``shown_bands``.
    Raises:
        ValueError: If Pillow does not write the format, or what it writes is not the picture.
    """
    fault = f"output {str(path)!r} cannot hold a picture of {shape[-1]} channels"
    try:
        grey = image_grid(np.full(shape, _GREY, np.uint8), bands=bands)
        content = _encoded(grey, path)
    except (KeyError, OSError, TypeError, ValueError, SystemError) as error:
        raise ValueError(
            f"{fault}: {error}; a .png file holds up to 4 channels, a .npz file any number"
        ) from error
    found = _decoded(content, grey.mode)
    if found is not None and found.shape != np.asarray(grey).shape:
        raise ValueError(
            f"{fault} and {grey.width} x {grey.height} pixels: it would be another of "
            f"{found.shape[1]} x {found.shape[0]}; use .png"
        )
    if found is not None and np.abs(found - float(_GREY)).max() > _TOLERANCE:
        raise ValueError(f"{fault}: it would lose some of them; use .png")


def _encoded(picture: Image.Image, path: Path) -> bytes:
    """Give the bytes of a picture in the format that a name ends in."""
    buffer = _NamedBuffer(path)
    picture.save(buffer, **saving_options(path, picture.size))
    return buffer.getvalue()


def _decoded(content: bytes, mode: str) -> np.ndarray | None:
    """Read a picture as an array of that mode; give None for formats that are only written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content)) as image:
                return np.asarray(image.convert(mode))
        except Exception:  # noqa: BLE001 (readers raise whatever they please)
            return None


class _NamedBuffer(io.BytesIO):
    """Memory with the name of a file, by which Pillow chooses the format."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.name = str(path)
