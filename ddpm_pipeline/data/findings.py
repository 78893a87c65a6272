"""What was found in a source of images, for people: sizes, modes, what was left out, and why.

data = open_images("photos/", resolution=64)
print(data)                   three lines
print(data.describe())        a line for each thing that was found
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ddpm_pipeline.common import printable

if TYPE_CHECKING:
    from ddpm_pipeline.data.images import ImageData

__all__ = [
    "Found",
    "Named",
    "counted",
    "describe_named",
    "described",
    "facts_of_reading",
    "grouped",
    "of_part",
    "printable",
    "summarized",
    "without_detail",
]

_NAMED = 5
_PART = re.compile(r", band file (.+)$")
_DETAIL = re.compile(r"\s*\([^()]*\)$")


class Named(NamedTuple):
    """How many there are, and the names of the first few."""

    count: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What reading a source found.

    Arguments:
        images: How many images the source has, readable or not.
        split: Which part of the source was taken, or None.
        sizes: How many readable images have each size, as in {"640×480": 3}, the most common
            first and rare ones together as "other sizes"; None from a cache that does not say.
        modes: The same of modes, as in {"RGB": 3, "I;16": 1}.
        skipped: Images that could not be read, by reason.
        unread: Files that may be images but are not read, by suffix.
        other_files: How many files are none.
        labels_from: Where the class labels came from, or None.
    """

    images: int = 0
    split: str | None = None
    sizes: Mapping[str, int] | None = None
    modes: Mapping[str, int] | None = None
    skipped: Mapping[str, Named] = field(default_factory=dict)
    unread: Mapping[str, Named] = field(default_factory=dict)
    other_files: int = 0
    labels_from: str | None = None


def grouped(reasons: Iterable[tuple[str, str]]) -> dict[str, Named]:
    """Group (name, reason) by reasons, whose details in brackets at the end do not count.

    The name is that of the file, where a reason says it by ``of_part``.
    """
    groups: dict[str, list[str]] = {}
    for name, reason in reasons:
        bare, *part = _PART.split(reason)
        groups.setdefault(without_detail(bare), []).append(part[0] if part else name)
    return {reason: Named(len(names), tuple(names[:_NAMED])) for reason, names in groups.items()}


def of_part(reason: str, file: str) -> str:
    """Say of which file a reason is why an image of several cannot be read."""
    return f"{reason}, band file {printable(file)}"


def without_detail(reason: str) -> str:
    """Leave out the numbers in brackets at the end of a reason, which differ from file to file."""
    return _DETAIL.sub("", reason)


def describe_named(groups: Mapping[str, Named]) -> str:
    """Say each group with its count and first names, as in "2 .heic (a.heic, b.heic)"."""
    parts = []
    for what, (count, names) in groups.items():
        more = ", ..." if count > len(names) else ""
        parts.append(f"{count:,} {what} ({', '.join(map(printable, names))}{more})")
    return "; ".join(parts)


def counted(counts: Mapping[str, int], most: int = 12) -> str:
    """Say counts by name, as in "cat 3, dog 2"; of many the first, and how many more."""
    parts = [f"{printable(name)} {count:,}" for name, count in counts.items()]
    more = f", and {len(parts) - most:,} more" if len(parts) > most else ""
    return ", ".join(parts[:most]) + more


def facts_of_reading(data: ImageData) -> dict[str, str]:
    """Say what was found in a source, what was done to it and what was left out, by headings."""
    found = data.found
    facts = {}
    if found.sizes and found.modes:
        facts["found"] = f"{counted(found.sizes)}; {counted(found.modes)}"
    if data.scale is not None:
        low, high = data.moments.low.min(), data.moments.high.max()
        facts["values"] = f"{low:g} … {high:g}, kept as {data.scale}"
    facts["changed"] = counted(data.changes) or "nothing"
    if found.skipped:
        facts["skipped"] = describe_named(found.skipped)
    if found.unread:
        facts["not read"] = describe_named(found.unread)
    return facts


def described(data: ImageData) -> list[str]:
    """Say what images are, what was done to them and what was left out, a line for each."""
    found = data.found
    part = f" of split {found.split!r}" if found.split else ""
    shape = "×".join(map(str, data.shape[1:]))
    lines = [f"images: {len(data):,}{part}, each {shape}"]
    if (counts := data.class_counts) is not None:
        source = f" (labels from {printable(found.labels_from)})" if found.labels_from else ""
        lines.append(f"classes: {len(counts):,}: {counted(counts)}{source}")
    return lines + [f"{heading}: {text}" for heading, text in facts_of_reading(data).items()]


def summarized(data: ImageData) -> list[str]:
    """Say the same in three lines."""
    found = data.found
    classes = f", {data.num_classes:,} classes" if data.num_classes else ""
    part = f", split {found.split!r}" if found.split else ""
    shape = "×".join(map(str, data.shape[1:]))
    kinds = "sizes and modes not kept"
    if found.sizes and found.modes:
        kinds = f"{counted(found.sizes, 3)}; {counted(found.modes, 3)}"
    unread = sum(named.count for named in found.unread.values())
    changed = counted(data.changes) or "nothing"
    return [
        f"ImageData: {len(data):,} images of {shape}{classes}{part}",
        f"  found: {kinds}",
        f"  changed: {changed}; skipped {data.skipped:,}; not read {unread:,}",
    ]
