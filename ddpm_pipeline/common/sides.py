"""How large images are: one number for a square, or height and width.

    as_resolution((64, 64))     64
    as_resolution([48, 80])     (48, 80)
    sides_of(64)                (64, 64)

A square is one number wherever it is kept, so that a config, a cache and a model of squares are
the same however they were asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from ddpm_pipeline.common.checks import is_integer

__all__ = ["Resolution", "as_resolution", "described_sides", "sides_of"]

Resolution = int | tuple[int, int]


def as_resolution(value: object, name: str = "resolution") -> Resolution:
    """Give a resolution in its one form: an int for a square, else (height, width).

    Arguments:
        value: A whole number, or two: height and width.
        name: Of the option, for the message.
    Raises:
        ValueError: If it is neither, or a side is below 1.
    """
    is_pair = isinstance(value, Sequence) and not isinstance(value, str)
    sides = tuple(value) if is_pair else (value, value)
    if len(sides) != 2 or not all(is_integer(side) and side >= 1 for side in sides):
        raise ValueError(
            f"{name} must be an integer of at least 1, got {value!r}; two are height and width"
        )
    height, width = (int(side) for side in sides)
    return height if height == width else (height, width)


def sides_of(resolution: int | Sequence[int]) -> tuple[int, int]:
    """Give (height, width) of a resolution, or of the sample_size of a UNet's config."""
    if isinstance(resolution, int):
        return resolution, resolution
    height, width = resolution
    return int(height), int(width)


def described_sides(resolution: int | Sequence[int]) -> str:
    """Say a resolution as people write it, height first: "64×64", "48×80"."""
    return "×".join(map(str, sides_of(resolution)))
