"""Values outside the range that a model is made for: counted and named, refused or clipped.

check_inside(data, "refuse")
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ddpm_pipeline.common import check_choice
from ddpm_pipeline.data.findings import printable
from ddpm_pipeline.data.moments import scale_of_values, widened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ddpm_pipeline.data.images import ImageData
    from ddpm_pipeline.data.moments import ValueMoments
    from ddpm_pipeline.networks import ValueScale

__all__ = ["OutsideRange", "check_inside", "measured", "with_scale"]

logger = logging.getLogger(__name__)

OutsideRange = Literal["refuse", "clip"]
_NAMED, _ROWS = 5, 256


def measured(
    data: ImageData,
    moments: ValueMoments | None,
    step: int | None,
    value_range: tuple[float, float] | None,
    outside: OutsideRange,
) -> ImageData:
    """Give images that are kept exactly the scale of their own values.

    Arguments:
        data: The images, bytes or deeper.
        moments, step: Of their values; None where all are bytes. Bytes without a range need none.
        value_range: (low, high) by the caller's word, or None.
        outside: What is to become of values outside of it.
    """
    check_choice("outside_range", outside, get_args(OutsideRange))
    dtype = str(data.values.dtype).removeprefix("torch.")
    if moments is None or (dtype == "uint8" and value_range is None):
        return data
    scale = scale_of_values(dtype, moments, step, value_range)
    data = replace(data, scale=scale, moments=moments)
    check_inside(data, moments, outside)
    return data


def with_scale(
    data: ImageData,
    scale: ValueScale | None,
    name: str,
    outside: OutsideRange = "refuse",
    *,
    widens: bool = False,
) -> ImageData:
    """Give images the scale of a model that was trained on others.

    Arguments:
        data: The images.
        scale: The model's; None for bytes.
        name: Of the images, for messages.
        outside: What is to become of values outside its range.
        widens: Whether the model is to be trained on them, which may be larger than those before.
    Raises:
        ValueError: If the images are of another type or depth, or have values that the model's
            scale has no place for.
    """
    found = str(data.values.dtype).removeprefix("torch.")
    wanted = "uint8" if scale is None else scale.dtype
    if found != wanted or (scale is None) != (data.scale is None):
        kept = "exactly" if data.scale is not None else "as bytes"
        asked = "bytes" if scale is None else f"exact {scale.dtype}"
        raise ValueError(
            f"{name} has images of {found}, kept {kept}, and the model was trained on {asked}"
        )
    if scale is None:
        return data
    data = replace(data, scale=widened(scale, data.moments) if widens else scale)
    check_inside(data, data.moments, outside)
    _check_step(data, name)
    return data


def _check_step(data: ImageData, name: str) -> None:
    """Refuse integers between the levels of a model, to which it gives no probability."""
    low, step = data.scale.low, data.scale.step
    if step in {None, 1}:
        return
    between = [
        (i, n) for i, n in _counts(data, lambda v: (v.astype(int) - int(low)) % step != 0) if n
    ]
    if between:
        count = sum(n for _, n in between)
        raise ValueError(
            f"{name} has {count:,} values in {len(between):,} images that are no multiples of "
            f"{step} from {low:g}, as all values are that the model was trained on"
        )


def check_inside(data: ImageData, moments: ValueMoments, outside: OutsideRange) -> None:
    """Refuse images with values outside the range of their scale, or warn that they are clipped.

    Arguments:
        data: Images with a scale.
        moments: Of all of their values; they tell whether a closer look is needed.
        outside: What is to become of such values.
    Raises:
        ValueError: If there are any, and they are to be refused; counts and names them.
    """
    low, high = data.scale.low, data.scale.high
    if low is None or (moments.low.min() >= low and moments.high.max() <= high):
        return
    found = [(i, n) for i, n in _counts(data, lambda v: (v < low) | (v > high)) if n]
    if not found:
        return
    count = sum(n for _, n in found)
    name_of = data.name_of or "image {}".format
    first = ", ".join(f"{printable(name_of(i))}: {n:,}" for i, n in found[:_NAMED])
    more = ", ..." if len(found) > _NAMED else ""
    message = (
        f"{count:,} values of {len(found):,} of {len(data):,} images are outside {low:g} … "
        f"{high:g} ({first}{more}); all are {moments.low.min():g} … {moments.high.max():g}"
    )
    if outside == "refuse":
        raise ValueError(f"{message}: widen value_range, or let outside_range='clip' cut them")
    logger.warning("%s; clipped", message)


def _counts(
    data: ImageData, is_wrong: Callable[[np.ndarray], np.ndarray]
) -> Iterator[tuple[int, int]]:
    """Count the values of each image, by its number among all, for which a test holds."""
    values = data.values.numpy()
    if data.windows is None:
        for start in range(0, len(values), _ROWS):
            wrong = is_wrong(values[start : start + _ROWS])
            yield from enumerate(wrong.reshape(len(wrong), -1).sum(1).tolist(), start)
        return
    for i, (first, height, width) in enumerate(data.windows.tolist()):
        part = values[first : first + data.channels * height * width]
        yield i, int(np.count_nonzero(is_wrong(part)))
