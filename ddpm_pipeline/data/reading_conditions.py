"""Reading what images are conditioned on: numbers of columns, and pictures that go with them.

    asked = asked_conditions(source, "low/", ("angle",), split, settings)
    data = with_conditions(data, found, dropped, asked, read)

Pictures of a folder are those of the same names as the images, without the suffix; those of arrays
and columns come in the images' order. They are kept in their own size, which is one for all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ddpm_pipeline.common import described_sides, key_of, normalized, sides_of
from ddpm_pipeline.data.conditions import DataConditions
from ddpm_pipeline.data.decoding import Preparation
from ddpm_pipeline.data.depth import open_image, orientation
from ddpm_pipeline.data.findings import printable
from ddpm_pipeline.data.sources.finding import find_source
from ddpm_pipeline.data.sources.kinds import data_kind
from ddpm_pipeline.data.sources.source import Source

if TYPE_CHECKING:
    from ddpm_pipeline.data.images import ImageData

__all__ = ["AskedConditions", "RememberedColumn", "asked_conditions", "with_conditions"]

_NAMED = 5


class RememberedColumn(str):
    """A name in ``condition_on`` that is a column's, whatever folder is called so."""

    __slots__ = ()


class AskedConditions(NamedTuple):
    """What images are to be conditioned on, as it was asked for.

    Arguments:
        on: A path or a column of pictures; None for none.
        columns: Of numbers.
        pictures: The source that a path holds.
        settings: How the images are decoded, and the channels of the pictures.
    """

    on: str | None
    columns: tuple[str, ...]
    pictures: Source | None
    settings: Preparation


def asked_conditions(
    source: object,
    on: str | os.PathLike | None,
    columns: Sequence[str] | None,
    split: str | None,
    settings: Preparation,
) -> AskedConditions | None:
    """Find the source of the pictures, if they have one of their own; None if none are asked for.

    Arguments:
        source: Of the images.
        on, columns: As for ``open_images``.
        split: Which part of the source the images are; pictures with folders of parts follow it.
        settings: How the images are decoded, with the channels that the pictures are to have.
    Raises:
        ValueError: If the pictures lie among the images, or cannot be opened.
    """
    columns = tuple(columns or ())
    if on is None:
        return AskedConditions(None, columns, None, settings) if columns else None
    path = Path(on).expanduser()
    if isinstance(on, RememberedColumn) or not path.exists():
        return AskedConditions(str(on), columns, None, settings)
    option = f"condition_on={printable(str(on))!r}"
    if isinstance(source, str | os.PathLike):
        own = Path(source).expanduser().resolve()
        if own.is_dir() and path.resolve().is_relative_to(own):
            raise ValueError(
                f"{option} lies in {printable(str(source))!r}, where its images would be images "
                "to learn too: put it elsewhere"
            )
    part = split if split and (path / split).is_dir() else "." if path.is_dir() else None
    try:
        is_folder = data_kind(path) in {"images", "shards", "nothing"}
        wanted = settings.channels
        found = find_source(path, part if is_folder else split, False, None, None, wanted)
    except (ValueError, OSError) as error:
        raise ValueError(f"{option}: {error}") from error
    named = on if isinstance(on, str) else str(path.absolute())  # which is no column's name
    return AskedConditions(named, columns, found, settings)


def with_conditions(
    data: ImageData,
    found: Source,
    dropped: Sequence[int],
    asked: AskedConditions,
    read: Callable[[Source, Preparation], ImageData],
) -> ImageData:
    """Give images what they are conditioned on.

    Arguments:
        data: The images.
        found: Their source.
        dropped: Which of the source's images could not be read.
        asked: What they are conditioned on.
        read: Decodes the pictures of a source, all of which must be readable.
    Raises:
        ValueError: If a condition is missing for some images, or is of another shape, or is no
            number; names them.
    """
    columns, vector, pictures = (), None, None
    if asked.columns:
        values, columns = _read_vector(found, asked.columns)
        vector = torch.from_numpy(np.delete(values, list(dropped), 0))
    if asked.on is not None:
        pictures = _pictures(data, found, asked, read)
        kept = np.delete(np.arange(found.length), list(dropped))
        pictures = pictures.subset(torch.from_numpy(kept)) if dropped else pictures
    given = DataConditions(columns, vector, pictures)
    return replace(data, given=given, fingerprint=key_of(data.fingerprint, given.fingerprint))


def _read_vector(found: Source, columns: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read the numbers of columns, float64 (N, n), and give their names.

    Raises:
        ValueError: If there is no such column, or it holds anything but finite numbers.
    """
    parts, names = [], []
    for column in columns:
        option = f"condition_vector={column!r}"
        if found.column is None:
            raise ValueError(f"{option} has no meaning for images without columns")
        values = _numbers(found.column(column, "condition_vector"), found, option)
        parts.append(values)
        several = values.shape[1] > 1
        names += [f"{column}[{j}]" if several else column for j in range(values.shape[1])]
    if len(set(names)) < len(names):
        raise ValueError(f"condition_vector must name different columns, got {', '.join(names)}")
    return np.concatenate(parts, 1), tuple(names)


def _numbers(values: Any, found: Source, option: str) -> np.ndarray:  # noqa: ANN401
    """Make float64 (N, k) of what a column holds."""
    try:
        if not isinstance(values, np.ndarray):
            values = [math.nan if v in (None, "") else v for v in values]
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{option} must hold numbers: {error}") from error
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or len(array) != found.length:
        raise ValueError(
            f"{option} must hold one number, or one row of numbers, for each of {found.length} "
            f"images, got shape {array.shape}"
        )
    if len(bad := np.flatnonzero(~np.isfinite(array).all(1))):
        raise ValueError(
            f"{option} is missing or not finite for {len(bad)} of {found.length} images, as "
            f"{_listed([found.name(int(i)) for i in bad[: _NAMED + 1]])}"
        )
    return array


def _pictures(
    data: ImageData,
    found: Source,
    asked: AskedConditions,
    read: Callable[[Source, Preparation], ImageData],
) -> ImageData:
    """Open the pictures, one for each image of the source."""
    option = f"condition_on={printable(asked.on)!r}"
    if data.windows is not None or data.was_cropped or data.was_padded:
        raise ValueError(
            f"{option} needs images that are neither cropped nor padded, which the conditions "
            "would not be: bring both to one shape"
        )
    pictures = asked.pictures
    if pictures is not None and asked.on in found.picture_columns:
        raise ValueError(
            f"{option} is a column of the data and a path: ./{printable(asked.on)} is the path; "
            "for the column, start in another folder"
        )
    if pictures is None:
        if found.pictures is None:
            raise ValueError(f"{option} is no folder and no file that is there")
        pictures = found.pictures(asked.on)
    numbers, missing = _matched(found, pictures)
    sides = _sides_of_first(pictures, asked.settings.max_pixels)
    problems = []
    if missing:
        problems.append(f"lacks {len(missing)} of {found.length} images, as {_listed(missing)}")
    else:
        opened = _opened(pictures, numbers, sides, asked.settings, read)
        if not opened.changes.keys() & {"resized", "cropped"}:
            _check_sides(option, sides, sides_of(data.resolution))
            return opened
    if odd := _odd(pictures, numbers, sides, asked.settings.max_pixels):
        problems.append(
            f"must hold images of one size, {described_sides(sides)}, and {_listed(odd)}"
        )
    elif not missing:
        changes = ", ".join(f"{count} {change}" for change, count in opened.changes.items())
        problems.append(f"must hold images of {described_sides(sides)}, as the first: {changes}")
    raise ValueError(f"{option} {'; it '.join(problems)}")


def _check_sides(option: str, sides: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Refuse pictures that are not scaled up to the images by whole numbers."""
    if any(w % s for s, w in zip(sides, wanted, strict=True)):
        raise ValueError(
            f"{option} has images of {described_sides(sides)}, and they must be as large as the "
            f"images, {described_sides(wanted)}, or by a whole number smaller"
        )


def _matched(found: Source, pictures: Source) -> tuple[list[int], list[str]]:
    """Find the picture of each image; give also the names of images without one.

    Raises:
        ValueError: If two pictures have the name of one image, or two images that of one picture,
            or there are not as many.
    """
    if not (found.has_names and pictures.has_names):
        if pictures.length != found.length:
            raise ValueError(
                f"condition_on must hold as many images as there are, {found.length}, got "
                f"{pictures.length}"
            )
        return list(range(found.length)), []
    place = _by_stem(pictures, "condition_on holds two images of one name")
    stems = _by_stem(found, "condition_on has one image for two of one name")
    missing = [found.name(i) for stem, i in stems.items() if stem not in place]
    return [place[stem] for stem in stems if stem in place], missing


def _by_stem(source: Source, problem: str) -> dict[str, int]:
    """Give the number of each image of a source by its name, in order; refuse a name twice."""
    place: dict[str, int] = {}
    for i in range(source.length):
        other = place.setdefault(_stem(source.name(i)), i)
        if other != i:
            raise ValueError(f"{problem}: {_listed([source.name(other), source.name(i)])}")
    return place


def _stem(name: str) -> str:
    """Give a name by which two files are one image's: without its suffix."""
    return normalized(str(Path(name).with_suffix("")))


def _opened(
    pictures: Source,
    numbers: Sequence[int],
    sides: tuple[int, int],
    settings: Preparation,
    read: Callable[[Source, Preparation], ImageData],
) -> ImageData:
    """Decode pictures in their own size, in the order of the images."""
    key = pictures.quick_key and key_of("conditions", pictures.quick_key, list(numbers))
    ordered = replace(
        pictures,
        length=len(numbers),
        read=lambda i: pictures.read(numbers[i]),
        name=lambda i: pictures.name(numbers[i]),
        size_of=None,
        quick_key=key,
        labels=None,
        class_names=None,
    )
    own = replace(
        settings,
        resolution=sides,
        crop="center",
        fit="resize",
        value_range=None if settings.is_exact else settings.value_range,
    )
    return read(ordered, own)


def _sides_of_first(source: Source, max_pixels: int | None = None) -> tuple[int, int]:
    """Give the height and width of a source's first image."""
    return _sides(source, 0, max_pixels)


def _sides(source: Source, i: int, max_pixels: int | None) -> tuple[int, int]:
    raw = source.read(i)
    if isinstance(raw, np.ndarray):
        return raw.shape[0], raw.shape[1]
    try:
        with open_image(raw, max_pixels) as image:
            sides = image.height, image.width
            return sides[::-1] if orientation(image) in {5, 6, 7, 8} else sides
    except Exception as error:  # Pillow's decoders raise many types
        name = printable(source.name(i))
        raise ValueError(f"condition_on: {name} cannot be read: {error}") from error


def _odd(
    pictures: Source, numbers: Sequence[int], sides: tuple[int, int], max_pixels: int | None
) -> list[str]:
    """Name the pictures that are not of the first one's size, with theirs."""
    found = []
    for i in numbers:
        own = _sides(pictures, i, max_pixels)
        if own != sides:
            found.append(f"{pictures.name(i)} is {described_sides(own)}")
    return found


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _NAMED else ""
    return ", ".join(map(printable, names[:_NAMED])) + more
