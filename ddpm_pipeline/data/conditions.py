"""What images are conditioned on, and what a model that is trained on them is.

data.given.of(indices, labels)                          a ``Condition`` of some of N images
conditioning_of(data.given, "bicubic", trains_null=True)
data = with_conditioning(data, facts_of(unet).conditioned_on, "data='test/'")
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ddpm_pipeline.common import described_sides, key_of, sides_of
from ddpm_pipeline.data.value_range import with_scale
from ddpm_pipeline.networks import Condition, Conditioning, Upsampling, ValueScale

if TYPE_CHECKING:
    from ddpm_pipeline.data.images import ImageData

__all__ = ["DataConditions", "conditioning_of", "with_conditioning"]


@dataclass(frozen=True, eq=False)
class DataConditions:
    """What each of N images is conditioned on.

    Arguments:
        columns: Names of the n numbers of the vector.
        vector: In the unit of the columns, float64 (N, n); None without.
        pictures: One for each image, in their own size; None without.
    """

    columns: tuple[str, ...] = ()
    vector: Tensor | None = None
    pictures: ImageData | None = None

    def of(self, indices: Tensor, labels: Tensor | None) -> Condition:
        """Give what some images are conditioned on, beside their classes."""
        vector = None if self.vector is None else self.vector.index_select(0, indices)
        pictures = None if self.pictures is None else self.pictures.batch(indices).images
        return Condition(labels=labels, vector=vector, picture=pictures)

    def subset(self, indices: Tensor) -> DataConditions:
        """Take those of some images alone."""
        return replace(
            self,
            vector=None if self.vector is None else self.vector.index_select(0, indices),
            pictures=None if self.pictures is None else self.pictures.subset(indices),
        )

    @property
    def fingerprint(self) -> str:
        """Give a hash of all of it."""
        values = None if self.vector is None else self.vector.tolist()
        pictures = None if self.pictures is None else self.pictures.fingerprint
        return key_of("conditions", self.columns, values, pictures)


def conditioning_of(
    given: DataConditions | None, upsampling: Upsampling, *, trains_null: bool
) -> Conditioning | None:
    """Give what a model that is trained on images is conditioned on; None of nothing.

    Arguments:
        given: What the images are conditioned on.
        upsampling: How smaller pictures are scaled up.
        trains_null: Whether it is also trained without.
    Raises:
        ValueError: If a column holds one number alone, which says nothing.
    """
    if given is None:
        return None
    known: dict[str, Any] = {"upsampling": upsampling, "trains_null": trains_null}
    if given.vector is not None:
        low, high = _ranges(given.vector, given.columns)
        known |= {"columns": given.columns, "low": low, "high": high}
    if given.pictures is not None:
        scale = given.pictures.scale
        known |= {
            "channels": given.pictures.channels,
            "sides": sides_of(given.pictures.resolution),
            "values": None if scale is None else scale.to_dict(),
        }
    return Conditioning(**known)


def with_conditioning(
    data: ImageData, wanted: Conditioning, name: str, said: str | None = None
) -> ImageData:
    """Give images the scale of a model's pictures, if their conditions are those of the model.

    Arguments:
        data: The images.
        wanted: What the model is conditioned on.
        name: Of the images, for messages.
        said: What the model is conditioned on, for messages; None for ``wanted`` itself.
    Raises:
        ValueError: If they are not; says what that is.
    """
    given, said = data.given or DataConditions(), said or str(wanted)
    count = 0 if given.vector is None else given.vector.shape[1]
    if count != len(wanted.columns):
        raise ValueError(
            f"{name}: condition_vector must name {len(wanted.columns)} columns, the model is "
            f"conditioned on {said}; got {count}"
        )
    pictures, scale = given.pictures, None
    shape = () if pictures is None else (pictures.channels, *sides_of(pictures.resolution))
    if shape != ((wanted.channels, *wanted.sides) if wanted.channels else ()):
        got = f"images of {shape[0]} channel(s), {described_sides(shape[1:])}" if shape else "none"
        raise ValueError(
            f"{name}: condition_on must be given, and is {got}; the model is conditioned on {said}"
        )
    if pictures is None:
        return data
    if wanted.values is not None:
        scale = ValueScale.from_dict(wanted.values)
    pictures = with_scale(pictures, scale, "condition_on", "clip")
    return replace(data, given=replace(given, pictures=pictures))


def _ranges(vector: Tensor, columns: Sequence[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give the lowest and the highest number of each column.

    Raises:
        ValueError: If a column holds one number alone, which says nothing.
    """
    low, high = vector.amin(0).tolist(), vector.amax(0).tolist()
    for name, least, most in zip(columns, low, high, strict=True):
        if least == most:
            raise ValueError(f"condition_vector={name!r} must vary, got {least:g} for every image")
        if not math.isfinite(most - least):
            raise ValueError(
                f"condition_vector={name!r} must have a range below 1.8e308, got {least:g} to "
                f"{most:g}"
            )
    return tuple(low), tuple(high)
