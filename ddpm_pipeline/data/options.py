"""The options of reading images, which training remembers in the model and measurements use.

    ReadingOptions(value_range=(0, 1)).over(remembered)     what is given comes first

They have the names of training's options. They cost nothing to import, for commands inherit them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from ddpm_pipeline.common import is_integer
from ddpm_pipeline.data.sources.stacks import check_stack_pattern

__all__ = ["ReadingOptions"]


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How images are read. None is what the model remembers of its training, or the default.

    Raises:
        ValueError: If a value is not allowed; the message names it and what is.
    """

    fit: Literal["resize", "pad"] | None = None
    """Scale images of another size, or put a border around smaller ones; as in training."""
    center_crop: bool | None = None
    """Cut the longer side in its middle; measurements always do."""
    channels: int | None = None
    """How many channels images have; as many as the model has."""
    value_range: tuple[float, float] | None = None
    """The values that become black and white, for arrays that are not bytes; as in training."""
    depth: Literal["bytes", "exact"] | None = None
    """Round values to 256 levels, or keep them as deep as they are; as in training."""
    outside_range: Literal["refuse", "clip"] | None = None
    """What becomes of values outside value_range with depth exact; as in training."""
    background: str | None = None
    """Colour that transparency and padding are filled with; as in training."""
    max_pixels: int | None = None
    """Refuse images of more pixels than this; as in training."""
    tiff_bands: Literal["all", "picture"] | None = None
    """What to read of TIFF files of several pages or more bands; as in training."""
    stack_pattern: str | None = None
    """How files of a folder are called that are a band each of one image, or "none"; as in
    training."""
    image_column: str | None = None
    """Column of the images in a data set; as in training, or found by its type."""
    label_column: str | None = None
    """Column of the class labels in a data set; as in training, or found by its type."""
    strict_data: bool | None = None
    """Refuse images that cannot be read, rather than skip them; as in training."""
    condition_on: str | None = None
    """Images that go with these, as in training: a folder, a file or a column."""
    condition_vector: tuple[str, ...] | None = None
    """Columns of numbers that go with the images; as in training."""

    def __post_init__(self) -> None:
        if self.channels is not None and not (is_integer(self.channels) and self.channels >= 1):
            raise ValueError(f"channels must be an integer of at least 1, got {self.channels!r}")
        if self.stack_pattern is not None:
            check_stack_pattern(self.stack_pattern)
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range must be (low, high), got {self.value_range}")

    @classmethod
    def of(cls, options: object) -> ReadingOptions:
        """Take those options of another object, such as a config, that it has."""
        names = [field.name for field in fields(ReadingOptions)]
        return ReadingOptions(**{name: getattr(options, name, None) for name in names})

    def over(self, others: ReadingOptions) -> ReadingOptions:
        """Give these options, and the others where these are None."""
        return ReadingOptions(**{**asdict(others), **_given(self)})

    def to_dict(self) -> dict[str, Any]:
        """Give the options that are not None, as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in _given(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Make options of what ``to_dict`` gave; later versions may know more, which is left."""
        known = {field.name: values.get(field.name) for field in fields(cls)}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in known.items()})


def _given(options: ReadingOptions) -> dict[str, Any]:
    """Give the reading options of an object that are not None."""
    values = {field.name: getattr(options, field.name) for field in fields(ReadingOptions)}
    return {name: value for name, value in values.items() if value is not None}
