"""Files of one band each that are an image together, found by a pattern of their names.

    stacks = stacked(["a/s1_b1.tif", "a/s1_b2.tif"], r"(?P<name>.*)_b(?P<band>\\d+)")
    stacks[0].name, stacks[0].files         "a/s1.tif", ("a/s1_b1.tif", "a/s1_b2.tif")

The pattern is a regular expression of all of a file's name below the folder, without its suffix.
Bands come in the order of their numbers, or of their names where one is no number. Every stack has
the same; nothing is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ddpm_pipeline.data.findings import printable
from ddpm_pipeline.data.sources.kinds import suffix_of

__all__ = [
    "NO_STACKS",
    "STACK_PATTERN",
    "FileStack",
    "Stack",
    "StackError",
    "check_stack_pattern",
    "is_stack_pattern",
    "naming_part",
    "not_of_model",
    "part_of",
    "stacked",
]

NO_STACKS = "none"
"""What is given in place of a pattern where each file is an image."""
STACK_PATTERN = (
    "a regular expression with the groups name and band, as '(?P<name>.*)_band(?P<band>[0-9]+)', "
    f"or {NO_STACKS!r}"
)
"""What a pattern may be, in words."""

_GROUPS = ("name", "band")
_NAMED = 3


class StackError(ValueError):
    """Files that are no whole stacks by their pattern."""


class Stack(NamedTuple):
    """One image of several files.

    Arguments:
        name: What the pattern calls it, with the suffix of its first file.
        files: In the order of the bands.
    """

    name: str
    files: tuple[str, ...]


class FileStack(NamedTuple):
    """The raw image of a stack.

    Arguments:
        files: The bytes of each file, in the order of the bands.
        names: Theirs.
    """

    files: tuple[bytes, ...]
    names: tuple[str, ...]


def is_stack_pattern(pattern: str) -> bool:
    """Tell whether this is "none", or a regular expression with the groups ``name``, ``band``."""
    try:
        return pattern == NO_STACKS or set(_GROUPS) <= set(re.compile(pattern).groupindex)
    except (re.error, TypeError):
        return False


def check_stack_pattern(pattern: str) -> None:
    """Refuse a pattern that is none.

    Raises:
        ValueError: If it is neither a regular expression with the groups ``name`` and ``band`` nor
            "none".
    """
    if not is_stack_pattern(pattern):
        fault = _fault(pattern)
        raise ValueError(f"stack_pattern must be {STACK_PATTERN}, got {pattern!r}{fault}")


def _fault(pattern: str) -> str:
    """Say what is no regular expression in a pattern, and where."""
    try:
        re.compile(pattern)
    except re.error as error:
        return f": {error}"
    except TypeError:
        pass
    return ""


def not_of_model(error: StackError) -> StackError:
    """Say of an error with the pattern of a model's training images what to give instead."""
    return StackError(
        f"{error}; that is the pattern of the model's training images: give stack_pattern="
        f"{NO_STACKS!r} if each file is an image, or the pattern of these"
    )


@contextmanager
def naming_part(file: str) -> Iterator[None]:
    """Have errors in the block know which file of a stack they are of, for ``part_of``."""
    try:
        yield
    except Exception as error:
        error.part_of_stack = file
        raise


def part_of(error: Exception) -> str | None:
    """Give the file of a stack that an error is of; None of other errors."""
    return getattr(error, "part_of_stack", None)


def stacked(files: Sequence[str], pattern: str) -> list[Stack]:
    """Put files together that are one image.

    Arguments:
        files: Names below the folder, as "a/s1_b1.tif".
        pattern: A regular expression with the groups ``name`` and ``band``.
    Returns:
        The stacks, sorted by name.
    Raises:
        ValueError: If the pattern is no such one.
        StackError: If a file does not match it, two files are one band, or a stack lacks a band
            that another has; names them.
    """
    check_stack_pattern(pattern)
    compiled, option = re.compile(pattern), f"stack_pattern={pattern!r}"
    found: dict[str, dict[str, str]] = {}
    strangers = []
    for file in files:
        matched = compiled.fullmatch(_without_suffix(file))
        if matched is None or None in matched.group(*_GROUPS):
            strangers.append(file)
            continue
        name, band = matched.group(*_GROUPS)
        other = found.setdefault(name, {}).setdefault(band, file)
        if other != file:
            raise StackError(f"{option}: {_listed([other, file])} are both band {band!r}")
    if strangers:
        raise StackError(
            f"{option} does not match {len(strangers)} of {len(files)} images, as "
            f"{_listed(strangers)}"
        )
    bands = _in_order({band for of_stack in found.values() for band in of_stack})
    _check_whole(found, bands, option)
    stacks = [tuple(of_stack[band] for band in bands) for of_stack in found.values()]
    return sorted(
        Stack(name + suffix_of(parts[0]), parts) for name, parts in zip(found, stacks, strict=True)
    )


def _without_suffix(file: str) -> str:
    return file[: len(file) - len(suffix_of(file))]


def _in_order(bands: set[str]) -> list[str]:
    """Sort bands by number if all are, else by name."""
    are_numbers = all(band.isdecimal() for band in bands)
    return sorted(bands, key=lambda band: (int(band) if are_numbers else 0, band))


def _check_whole(found: dict[str, dict[str, str]], bands: list[str], option: str) -> None:
    """Refuse stacks that lack a band that another has."""
    lacking = {
        name: [band for band in bands if band not in of_stack]
        for name, of_stack in found.items()
        if len(of_stack) < len(bands)
    }
    if lacking:
        first = list(lacking.items())[:_NAMED]
        named = "; ".join(f"{printable(name)} lacks {', '.join(some)}" for name, some in first)
        more = "; ..." if len(lacking) > _NAMED else ""
        raise StackError(
            f"{option}: {len(lacking)} of {len(found)} images lack bands of "
            f"{', '.join(bands)}: {named}{more}"
        )


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _NAMED else ""
    return ", ".join(map(printable, names[:_NAMED])) + more
