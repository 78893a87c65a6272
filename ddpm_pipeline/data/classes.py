"""The classes of images and those of a model or of other images, matched by name.

    data = without_gaps(data)                                      3, 70000 become "3", "70000"
    class_counts(data)                                             images of each class
    held_out = with_classes(held_out, ("cat", "dog"), 2, "data='test/'")

Numbers alone say nothing across two sets: folders are numbered in the order of their names, so
that one folder more shifts all others. A class that a set lacks is no mistake; one that the model
does not know is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ddpm_pipeline.common import key_of, normalized
from ddpm_pipeline.data.images import ImageData
from ddpm_pipeline.networks import MAX_CLASSES, listed

__all__ = ["class_counts", "with_classes", "without_gaps"]


def class_counts(data: ImageData) -> tuple[int, ...] | None:
    """Count the images of each class; None without labels.

    Raises:
        ValueError: If there are more classes than any network has.
    """
    if data.labels is None:
        return None
    if data.num_classes > MAX_CLASSES:
        raise ValueError(
            f"there are {data.num_classes:,} classes by the largest label, and at most "
            f"{MAX_CLASSES:,} are allowed; without_gaps numbers those that have images"
        )
    return tuple(torch.bincount(data.labels, minlength=data.num_classes).tolist())


def without_gaps(data: ImageData) -> ImageData:
    """Number the classes of integer labels one after the other, with their integers as names.

    Every number up to the largest would have an embedding otherwise, also those that no image has.
    Data stay what they are if their classes have names, or leave no gaps, or are more than the
    largest label says, as somebody chose.
    """
    if data.labels is None or data.class_names is not None:
        return data
    present = data.labels.unique()
    if len(present) == data.num_classes or int(present[-1]) + 1 < data.num_classes:
        return data
    names = tuple(map(str, present.tolist()))
    return _relabelled(data, torch.searchsorted(present, data.labels), names, len(names))


def with_classes(
    data: ImageData,
    names: Sequence[str] | None,
    num_classes: int,
    source: str,
    *,
    are_numbers: bool = True,
) -> ImageData:
    """Give images the class numbers of a model, by name where the model has names.

    Arguments:
        data: The images; those without labels stay what they are.
        names: The model's classes in their order; None for a model that has only numbers.
        num_classes: How many classes the model has.
        source: What the images are, for the message.
        are_numbers: Whether a model without names was trained on labels that are integers, so
            that a class called "7" is class 7; otherwise classes count in their order.
    Raises:
        ValueError: If an image has a class that the model has not; names it, and those it has.
    """
    if data.labels is None:
        return data
    present = data.labels.unique()
    called = _names(data, present)
    numbers = _numbers(data, present, names, are_numbers=are_numbers)
    unknown = [
        name
        for name, number in zip(called, numbers, strict=True)
        if number is None or number >= num_classes
    ]
    if unknown:
        plural = "class" if len(unknown) == 1 else "classes"
        known = f"0 to {num_classes - 1}" if names is None else listed(names)
        raise ValueError(
            f"{source} has images of {plural} {listed(list(map(repr, unknown)))}, which the model "
            f"does not know; its classes are {known}"
        )
    if numbers == present.tolist():
        return replace(data, class_names=names and tuple(names), num_classes=num_classes)
    table = torch.tensor(numbers, dtype=torch.int64)
    labels = table[torch.searchsorted(present, data.labels)]
    return _relabelled(data, labels, names and tuple(names), num_classes)


def _names(data: ImageData, present: Tensor) -> list[str]:
    """Say what the classes of these numbers are called."""
    if data.class_names is None:
        return list(map(str, present.tolist()))
    return [data.class_names[number] for number in present.tolist()]


def _numbers(
    data: ImageData, present: Tensor, names: Sequence[str] | None, *, are_numbers: bool
) -> list[int | None]:
    """Find the model's number of each class; None for a class that it has not."""
    called = _names(data, present)
    if names is None:
        by_integer = data.class_names is not None and are_numbers and _are_integers(called)
        return list(map(int, called)) if by_integer else present.tolist()
    if data.class_names is None and not _are_integers(names):
        return present.tolist()  # nothing says more than the number
    number = {normalized(name): i for i, name in enumerate(names)}
    return [number.get(normalized(name)) for name in called]


def _are_integers(names: Sequence[str]) -> bool:
    return all(name.isdecimal() and str(int(name)) == name for name in names)


def _relabelled(
    data: ImageData, labels: Tensor, names: tuple[str, ...] | None, num_classes: int
) -> ImageData:
    return replace(
        data,
        labels=labels,
        class_names=names,
        num_classes=num_classes,
        fingerprint=key_of(data.fingerprint, labels.tolist(), names),
    )
