"""What the header of an image tells, and what a first reading of a whole source found.

    found = inspect_image(raw, settings)           hash, channels, mode and size; nothing decoded
    plan.inspection.to_json()                      kept for this source alone, never by content

Names, places and reasons of what cannot be read belong to the source at hand: another source with
the same readable images has others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from ddpm_pipeline.data.byte_order import is_swapped
from ddpm_pipeline.data.decoding import Preparation
from ddpm_pipeline.data.depth import Layout, check_depth, layout_of, open_image
from ddpm_pipeline.data.exact import exact_type
from ddpm_pipeline.data.file_stacks import StackedFiles, bands_of
from ddpm_pipeline.data.findings import of_part
from ddpm_pipeline.data.fitting import excess_ratio
from ddpm_pipeline.data.sources.source import RawImage, one_line
from ddpm_pipeline.data.sources.stacks import FileStack, part_of
from ddpm_pipeline.data.tiff_bands import BandStack

__all__ = [
    "Inspected",
    "Inspection",
    "ReadingPlan",
    "common_counts",
    "describe_refused",
    "inspect_image",
    "reason_of",
]

_COMMON = 6
_READ_EXACTLY, _UNSWAPPED = b"read exactly", b", unswapped"
_ALL_BANDS, _FIRST_BANDS = b"all bands", b"first bands"


class Inspected(NamedTuple):
    """What one raw image tells before it is decoded.

    Arguments:
        digest: Hash of its content.
        channels: How many it asks for; None if only its pixels tell whether it has colours.
        mode: Its mode or type, for people.
        size: Width and height, for people.
        dtype: The type in which its values are kept.
    """

    digest: bytes
    channels: int | None
    mode: str
    size: str
    dtype: str = "uint8"

    def ratio(self, sides: tuple[int, int]) -> float:
        """Give how many times more pixels it has, when it is scaled, than (height, width) hold."""
        width, height = (int(side) for side in self.size.split("×"))
        return excess_ratio((width, height), sides)


@dataclass(frozen=True)
class Inspection:
    """What a first reading found in one source.

    Arguments:
        unreadable: Why each image that has no readable header has none, by its number.
        sizes, modes: How many readable images have each; None if that was not kept.
    """

    unreadable: Mapping[int, str]
    sizes: Mapping[str, int] | None = None
    modes: Mapping[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON values."""
        unreadable = [[i, reason] for i, reason in sorted(self.unreadable.items())]
        return {"unreadable": unreadable, "sizes": self.sizes, "modes": self.modes}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Inspection:
        """Take what ``to_json`` gave."""
        unreadable = {int(i): str(reason) for i, reason in values["unreadable"]}
        return cls(unreadable, dict(values["sizes"]), dict(values["modes"]))


@dataclass(frozen=True)
class ReadingPlan:
    """The findings of a first reading of all images.

    Arguments:
        fingerprint: Hash of the content of all images and of the settings.
        settings: The settings, with the channels found out.
        readable: Which images have a header that can be read.
        inspection: What else was found.
        lasting: Whether the same files will give the same findings; not if reading one failed.
        largest: Bytes of the largest image when it is decoded, at most.
        dtype: The type of the values.
    """

    fingerprint: str
    settings: Preparation
    readable: tuple[int, ...]
    inspection: Inspection
    lasting: bool
    largest: int = 0
    dtype: str = "uint8"


def inspect_image(raw: RawImage, settings: Preparation) -> Inspected:
    """Hash one raw image, and read its header.

    Raises:
        RefusedImageError: If nothing says what its black and white are.
        Exception: Of many types, if it is no image.
    """
    if isinstance(raw, np.ndarray):
        values = np.ascontiguousarray(raw if raw.ndim == 3 else raw[:, :, None])
        digest = hashlib.sha256(f"{values.shape}{values.dtype}".encode())
        digest.update(values.data)
        height, width, channels = values.shape
        kept = values.dtype.name if settings.is_exact and values.dtype != bool else "uint8"
        size = f"{width}×{height}"
        return Inspected(digest.digest(), channels, str(values.dtype), size, kept)
    if (stack := bands_of(raw, settings)) is not None:
        return _inspected_bands(raw, stack, settings)
    with open_image(raw, settings.max_pixels) as image:
        layout = layout_of(image)
        dtype = "uint8"
        if settings.is_exact:
            dtype = exact_type(layout)
        else:
            check_depth(layout, settings.value_range)
        channels = _channels(image, layout, settings)
        size, swapped = f"{image.width}×{image.height}", is_swapped(image)
    digest = hashlib.sha256(raw).digest()
    if not layout.as_before or (layout.exact and settings.value_range is not None):
        digest += _READ_EXACTLY + (_UNSWAPPED if swapped else b"")
    return Inspected(digest, channels, layout.name, size, dtype)


def _inspected_bands(
    raw: bytes | FileStack, stack: BandStack | StackedFiles, settings: Preparation
) -> Inspected:
    """Tell of bands what their headers tell."""
    dtype, layout = "uint8", stack.layout
    if settings.is_exact:
        dtype = exact_type(layout)
    else:
        check_depth(layout, settings.value_range)
    files = raw.files if isinstance(raw, FileStack) else (raw,)
    digest = b"".join(hashlib.sha256(file).digest() for file in files)
    digest += _FIRST_BANDS if stack.is_picture else _ALL_BANDS
    width, height = stack.size
    channels: int | None = stack.channels
    if stack.is_picture and channels == 1 and not settings.white_background:
        channels = None  # a coloured background may show beside it
    return Inspected(digest, channels, stack.described, f"{width}×{height}", dtype)


def _channels(image: Image.Image, layout: Layout, settings: Preparation) -> int | None:
    """Tell how many channels an image asks for; None if its pixels must be seen."""
    if not layout.grey:
        return None if layout.grey is None else 3
    if settings.white_background:
        return 1
    framed = settings.fit == "pad" and image.size != settings.sides[::-1]
    return None if framed or image.has_transparency_data else 1


def common_counts(counts: Counter[str], rest: str) -> dict[str, int]:
    """Give the most common with their counts, and the rest together under a name."""
    common = counts.most_common() if len(counts) <= _COMMON else counts.most_common(_COMMON - 1)
    others = counts.total() - sum(count for _, count in common)
    return dict(common) | ({rest: others} if others else {})


def reason_of(error: Exception) -> str:
    """Say why an image cannot be read, without the path that the system names.

    Of an image of several files it says which.
    """
    part = part_of(error)
    return _reason(error) if part is None else of_part(_reason(error), part)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(error)


def describe_refused(refused: Mapping[int, str], names: Sequence[str], length: int) -> str:
    """Say which images do not fit what was asked for, counted and by their first names."""
    first = "; ".join(
        f"{name}: {refused[i]}" for i, name in zip(sorted(refused), names, strict=False)
    )
    if len(refused) == 1:
        return first
    more = "; ..." if len(refused) > len(names) else ""
    return f"{len(refused)} of {length} images are refused: {first}{more}"
