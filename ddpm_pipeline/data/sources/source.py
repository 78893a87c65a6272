"""A `Source`: N raw images of any kind behind one face, with a class label each or without.

    source.read(i)           bytes of an image file or of several, or an array (H, W) or (H, W, C)
    source.name(i)           what messages call it
    source.quick_key         changes whenever the images may have changed

Finding a source reads names, sizes and labels. Pixels are read only when `read` is called, so a
data set that is already in the cache costs nothing.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ddpm_pipeline.common import normalized
from ddpm_pipeline.data.findings import Named
from ddpm_pipeline.data.sources.kinds import MeaninglessOptionError
from ddpm_pipeline.data.sources.stacks import FileStack

__all__ = [
    "LABEL_NAMES",
    "DamagedSourceError",
    "RawImage",
    "Source",
    "check_distinct",
    "check_label_shape",
    "encode_labels",
    "one_line",
    "refuse",
]

LABEL_NAMES = ("label", "labels", "class", "cls")
"""What a column of class labels is called, where its type does not say that it is one."""

RawImage = bytes | FileStack | np.ndarray


class DamagedSourceError(ValueError):
    """Data that are damaged as a whole, so that none of their images can be read."""


@dataclass(frozen=True)
class Source:
    """N raw images in a fixed order, and their class labels.

    Arguments:
        length: N.
        read: `read(i)` gives raw image i; safe to call from threads.
        name: `name(i)` says which image i is, for messages.
        quick_key: A hash that is cheap to compute and changes whenever the images may have; None
            where there is none (an array in memory).
        labels: Integer class labels (N,), or None.
        class_names: One name per class, or None.
        dtype: What arrays hold; "uint8" for image files.
        split: Which part of the data this is, or None.
        unread: Files that may be images but are not read, by suffix.
        other_files: How many files are no images.
        labels_from: Where the labels came from, or None.
        size_of: `size_of(i)` gives the bytes of raw image i, where that is known beforehand.
        has_names: Whether names are those of files, by which two sources are matched.
        column: `column(name, option)` gives a value of each image, where there are such.
        pictures: `pictures(column)` gives other images of the same rows.
        picture_columns: What that may be asked for.
    """

    length: int
    read: Callable[[int], RawImage]
    name: Callable[[int], str]
    quick_key: str | None
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    dtype: str = "uint8"
    split: str | None = None
    unread: Mapping[str, Named] = field(default_factory=dict)
    other_files: int = 0
    labels_from: str | None = None
    size_of: Callable[[int], int] | None = None
    has_names: bool = False
    column: Callable[[str, str], Sequence[Any]] | None = None
    pictures: Callable[[str], "Source"] | None = None
    picture_columns: Sequence[str] = ()


def refuse(kind: str, **options: object) -> None:
    """Refuse options that a kind of source cannot obey, rather than ignore them.

    Arguments:
        kind: What the source is, for the message.
        options: By name; None where the caller did not give one.
    Raises:
        MeaninglessOptionError: If any is given; names the first.
    """
    for name, value in options.items():
        if value is not None:
            raise MeaninglessOptionError(name, value, kind)


def encode_labels(
    values: Sequence[Any], class_names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Turn class labels into int64: strings are numbered in sorted order, integers are kept.

    Arguments:
        values: One label per image.
        class_names: Names of the classes 0, 1, ... if the labels are integers, or None.
    Returns:
        The labels (N,), and the names of the classes or None.

    Raises:
        ValueError: If a label is missing (None, NaN, blank or negative), neither an integer nor a
            string, or too large an integer; if two names of classes look the same.
    """
    if missing := [i for i, value in enumerate(values) if _is_missing(value)]:
        raise ValueError(
            f"labels missing for {len(missing)} of {len(values)} images; image {missing[0]} is "
            "the first, counted from 0"
        )
    if all(isinstance(v, str) for v in values):
        names = sorted(set(values))
        check_distinct(names)
        number = {name: i for i, name in enumerate(names)}
        return np.array([number[v] for v in values], np.int64), tuple(names)
    if not all(isinstance(v, int | np.integer) for v in values):
        odd = next(v for v in values if not isinstance(v, int | np.integer))
        if all(isinstance(v, int | np.integer | str) for v in values):
            number = next(v for v in values if not isinstance(v, str))
            raise ValueError(
                "labels must be integers or strings and not a mixture of both, got "
                f"{odd!r} and {number!r}"
            )
        raise ValueError(f"labels must be integers or strings, got {odd!r}")
    if (largest := max(values, default=0)) > np.iinfo(np.int64).max:
        raise ValueError(f"labels must be below 2^63, got {largest}")
    check_distinct(class_names or ())
    return np.array(values, np.int64), None if class_names is None else tuple(class_names)


def _is_missing(label: object) -> bool:
    """Tell what stands for no label; NaN is what a column of integers with gaps becomes."""
    if isinstance(label, str):
        return not label.strip()
    if isinstance(label, int | np.integer):
        return label < 0
    return label is None or (isinstance(label, float) and math.isnan(label))


def check_label_shape(shape: tuple[int, ...]) -> None:
    """Refuse labels that are no list of one per image.

    Raises:
        ValueError: If they have more axes than one, or none; says how to make a list of them.
    """
    if len(shape) == 1:
        return
    hints = {True: "; give labels[:, 0]", False: "; if they are one-hot, give labels.argmax(1)"}
    hint = hints[shape[1] == 1] if len(shape) == 2 else ""
    raise ValueError(f"labels must have shape (N,), one per image, got {tuple(shape)}{hint}")


def check_distinct(class_names: Iterable[str]) -> None:
    """Refuse names of classes that differ in nothing that can be seen.

    Raises:
        ValueError: If two differ only in how letters are composed, or in spaces.
    """
    looks: dict[str, str] = {}
    for name in class_names:
        other = looks.setdefault(normalized(name), name)
        if other != name:
            raise ValueError(
                f"the classes {other!a} and {name!a} look the same, and would be two: "
                "give them one name, or names that differ"
            )


def one_line(error: Exception) -> str:
    """Give an error's message on one line, or the name of its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
