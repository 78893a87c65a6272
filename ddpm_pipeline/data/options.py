"""The options of reading images, as a model remembers them and a command gives them.

    given      = ReadingOptions(fit="pad", background="white")
    remembered = ReadingOptions.from_dict(record)
    open_images(source, resolution=64, **given.over(remembered).arguments())

None says that an option was not given: what is remembered counts then, else the default of
``open_images``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

__all__ = ["Crop", "Fit", "ReadingOptions"]

Crop = Literal["center", "random"]
Fit = Literal["resize", "pad"]


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """Options of ``open_images`` that decide what becomes of a file; None where none was given.

    Arguments:
        fit, crop, channels: What becomes of images of another size, or of other channels.
        value_range: The values that become black and white.
        image_column, label_column: Columns of a data set or of a folder's metadata.
        background: The colour under transparency and in padding.
        max_pixels: How many pixels an image may have.
        strict: Whether images that cannot be read are refused.
    """

    fit: Fit | None = None
    crop: Crop | None = None
    channels: int | None = None
    value_range: tuple[float, float] | None = None
    image_column: str | None = None
    label_column: str | None = None
    background: str | tuple[int, int, int] | None = None
    max_pixels: int | None = None
    strict: bool | None = None

    def over(self, remembered: ReadingOptions | None) -> ReadingOptions:
        """Give these options, and what is remembered where these say nothing."""
        return self if remembered is None else replace(remembered, **self.arguments())

    def arguments(self) -> dict[str, Any]:
        """Give the options that say something, as keyword arguments of ``open_images``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Give the options that say something, as JSON values."""
        values = self.arguments().items()
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ReadingOptions:
        """Take what ``to_dict`` gave.

        Raises:
            ValueError: If there is an option that this version does not know.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown options of reading: {', '.join(unknown)}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
