"""Prepared images: their bytes, joined with what is known of them and of the source at hand.

    pixels = pixels_of(values, header, source, inspection)

The bytes and the header follow from the content alone; names, and which images of a source cannot
be read, belong to that source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ddpm_pipeline.data.findings import Found, grouped, printable
from ddpm_pipeline.data.inspection import Inspection
from ddpm_pipeline.data.moments import ValueMoments
from ddpm_pipeline.data.sources.source import Source

__all__ = ["NAMED", "Pixels", "check_length", "describe_unreadable", "first_errors", "pixels_of"]

NAMED = 5
"""How many images messages name."""


@dataclass(frozen=True)
class Pixels:
    """The prepared images of a source, and what preparing them found.

    Arguments:
        values: Bytes, (N, C, H, W); flat, one image after the other, if some are not square.
        sizes: Height and width of each image (N, 2) where `values` is flat, else None.
        channels: C.
        fingerprint: Hash of the content of the source and of the settings.
        dropped: Which of the source's images could not be read.
        errors: The first few of those, by name and reason.
        changes: How many images were "resized", "cropped", "padded", "requantized" (had values
            between the 256 levels) or converted, as in "RGBA to RGB".
        found: Sizes, modes and reasons, for people.
        moments: Of the values, if they are kept as deep as they were; None of bytes.
        step: Distance of their levels, if they are integers kept so.
    """

    values: np.ndarray
    sizes: np.ndarray | None
    channels: int
    fingerprint: str
    dropped: tuple[int, ...]
    errors: tuple[str, ...]
    changes: dict[str, int]
    found: Found = field(default_factory=Found)
    moments: ValueMoments | None = None
    step: int | None = None


def first_errors(source: Source, failures: dict[int, str]) -> list[str]:
    """Name the first images that cannot be read, each with why."""
    first = sorted(failures)[:NAMED]
    return [f"{printable(source.name(i))} ({failures[i]})" for i in first]


def describe_unreadable(count: int, length: int, errors: Sequence[str]) -> str:
    """Say how many of a source's images cannot be read, and why the first few cannot."""
    more = ", ..." if count > len(errors) else ""
    return f"{count} of {length} images cannot be read: {'; '.join(errors)}{more}"


def check_length(values: np.ndarray, header: dict[str, Any]) -> None:
    """Raise ValueError if there are more or fewer values than a header says."""
    if header["sizes"] is None:
        expected = np.prod(header["shape"], dtype=np.int64)
    else:
        expected = np.array(header["sizes"], np.int64).prod(1).sum() * header["channels"]
    if values.size != expected:
        raise ValueError(f"it holds {values.nbytes} bytes, not what its header says")


def pixels_of(
    values: np.ndarray, header: dict[str, Any], source: Source, inspection: Inspection
) -> Pixels:
    """Join the bytes of all images with what is known of them and of the source at hand.

    Arguments:
        values: The bytes.
        header: What ``Preparer.write`` gave, for these images in this or another source.
        source, inspection: The source, and which of its images have no readable header.
    Raises:
        ValueError: If there are more or fewer bytes than the header says, or other images than
            the source has.
    """
    check_length(values, header)
    sizes = None if header["sizes"] is None else np.array(header["sizes"], np.int64)
    failures, undecodable = dict(inspection.unreadable), header.get("undecodable", ())
    kept = header["shape"][0] if sizes is None else len(sizes)
    if kept + len(undecodable) + len(failures) != source.length:
        raise ValueError(f"it holds {kept} images, not those of the source")
    if undecodable:
        readable = np.delete(np.arange(source.length), sorted(failures))
        failures |= {int(readable[place]): reason for place, reason in undecodable}
    dropped = tuple(sorted(failures))
    return Pixels(
        values=values if sizes is not None else values.reshape(header["shape"]),
        sizes=sizes,
        channels=header["channels"],
        fingerprint=header["fingerprint"],
        dropped=dropped,
        errors=tuple(first_errors(source, failures)),
        changes=header["changes"],
        found=Found(
            images=source.length,
            split=source.split,
            sizes=inspection.sizes,
            modes=inspection.modes,
            skipped=grouped((source.name(i), failures[i]) for i in dropped),
            unread=source.unread,
            other_files=source.other_files,
            labels_from=source.labels_from,
        ),
        moments=ValueMoments.from_json(header["moments"]) if "moments" in header else None,
        step=header.get("step"),
    )
