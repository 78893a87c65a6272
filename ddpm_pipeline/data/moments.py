"""What the values of all images of a source are like, channel by channel: for a model's scale.

    moments = ValueMoments.of(values)              of one image (C, H, W)
    total   = moments + others
    total.scale("uint16", value_range=None)        the ``ValueScale`` of models of these images

They are sums in float64 of what lies in the cache, taken in the order of the images, so that they
follow from its content.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpm_pipeline.networks import ValueScale

if TYPE_CHECKING:
    from collections.abc import Callable

    from ddpm_pipeline.data.sources.source import RawImage

__all__ = ["ValueMeter", "ValueMoments", "scale_of_values"]


@dataclass(frozen=True)
class ValueMoments:
    """Moments of values by channel.

    Arguments:
        count: Values of one channel.
        mean, squares: Their mean, and the sum of squared distances from it, float64 (C,).
        low, high: The lowest and the highest, float64 (C,).
    """

    count: int
    mean: np.ndarray
    squares: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> ValueMoments:
        """Measure one image (C, H, W), whose values are finite."""
        rows = values.reshape(len(values), -1)
        shift = rows[:, :1].astype(np.float64)  # squares of what is far from 0 would cancel
        near = rows - shift
        count = rows.shape[1]
        mean = np.add.reduce(near, axis=1) / count  # each by its ufunc: methods take twice as long
        squares = np.einsum("ij,ij->i", near, near) - count * mean**2
        low, high = (f.reduce(rows, axis=1).astype(np.float64) for f in (np.minimum, np.maximum))
        return cls(count, mean + shift[:, 0], np.maximum(squares, 0), low, high)

    def __add__(self, other: ValueMoments) -> ValueMoments:
        """Join two sets of images.

        Source: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance".
        """
        count = self.count + other.count
        apart = other.mean - self.mean
        return ValueMoments(
            count,
            self.mean + apart * (other.count / count),
            self.squares + other.squares + apart**2 * (self.count * other.count / count),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON values."""
        lists = {name: getattr(self, name).tolist() for name in ("mean", "squares", "low", "high")}
        return {"count": self.count, **lists}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ValueMoments:
        """Take what ``to_json`` gave."""
        names = ("mean", "squares", "low", "high")
        return cls(int(values["count"]), *(np.array(values[n], np.float64) for n in names))


class ValueMeter:
    """Measures images while they are decoded, in threads.

    Arguments:
        decode: Gives an image (C, H, W), and what was done to it.
        dtype: Of the values.
    """

    def __init__(
        self, decode: Callable[[RawImage], tuple[np.ndarray, tuple[str, ...]]], dtype: str
    ) -> None:
        self._decode, self._total = decode, None
        self._levels = _LevelStep() if np.dtype(dtype).kind in "iu" else None

    def __call__(self, raw: RawImage) -> tuple[np.ndarray, tuple[str, ...], ValueMoments]:
        """Decode and measure one image."""
        values, changes = self._decode(raw)
        if self._levels is not None:
            self._levels.note(values)
        return values, changes, ValueMoments.of(values)

    def add(self, moments: ValueMoments) -> None:
        """Count in what was measured of one image; in the order of the images."""
        self._total = moments if self._total is None else self._total + moments

    def to_json(self) -> dict[str, Any]:
        """Give the moments of all, and the step of the levels that occur, as JSON values."""
        step = None if self._levels is None else self._levels.step
        moments = None if self._total is None else self._total.to_json()
        return {"moments": moments, "step": step}


class _LevelStep:
    """The largest distance of which all differences of integers are multiples, from any thread.

    It is the greatest common divisor of all distances from the first value, 0 while there is no
    other one. It only falls, each time to a half or less, so that a remainder is rarely found.
    """

    def __init__(self) -> None:
        self._first: int | None = None
        self._step = 0
        self._lock = Lock()

    def note(self, values: np.ndarray) -> None:
        """Note the values of an image."""
        if self._step == 1:
            return
        with self._lock:
            if self._first is None:
                self._first = int(values.flat[0])
            held, step = values.astype(np.int32), self._step
            if step == 0 or (held % step != self._first % step).any():
                apart = int(np.gcd.reduce(held - self._first, axis=None))
                self._step = math.gcd(step, apart)

    @property
    def step(self) -> int:
        """Give the distance; 1 of one value."""
        return max(1, self._step)


def scale_of_values(
    dtype: str, moments: ValueMoments, step: int | None, value_range: tuple[float, float] | None
) -> ValueScale:
    """Choose the scale of a model of these images.

    With a range, its ends become -1 and 1. Without one, the mean of each channel becomes 0, and
    two standard deviations 1, which leaves the variance at that of typical pictures.

    Arguments:
        dtype: Of the values.
        moments: Of all images.
        step: Distance of the levels of integers; None of floats.
        value_range: (low, high) by the caller's word, or None.
    """
    channels = len(moments.mean)
    if value_range is not None:
        low, high = value_range
        center, unit = [(low + high) / 2] * channels, [(high - low) / 2] * channels
    else:
        deviation = np.sqrt(moments.squares / moments.count)
        center, unit = moments.mean, np.where(deviation > 0, 2 * deviation, 1)
    center, unit = (tuple(np.float32(v).tolist() for v in values) for values in (center, unit))
    if step is None:
        low, high = value_range or (None, None)
        largest = _largest(moments, center, unit, (low, high))
        return ValueScale(dtype, center, unit, low, high, largest=largest)
    limits = np.iinfo(dtype)
    ends = value_range or (limits.min, limits.max)
    ends = max(ends[0], limits.min), min(ends[1], limits.max)
    start = int(moments.low.min())
    low = start - step * ((start - math.ceil(ends[0])) // step)
    high = start + step * ((math.floor(ends[1]) - start) // step)
    largest = _largest(moments, center, unit, (low, high))
    return ValueScale(dtype, center, unit, low, high, step, largest)


def widened(scale: ValueScale, moments: ValueMoments) -> ValueScale:
    """Give a scale whose largest magnitude is that of other images, if theirs is larger."""
    largest = _largest(moments, scale.center, scale.unit, (scale.low, scale.high))
    return replace(scale, largest=max(scale.largest, largest))


def _largest(
    moments: ValueMoments,
    center: tuple[float, ...],
    unit: tuple[float, ...],
    limits: tuple[float | None, float | None],
) -> float:
    """Give the largest magnitude of values as a model sees them, at least 1."""
    ends = np.stack([moments.low, moments.high])
    if limits[0] is not None:  # beyond which values are cut
        ends = ends.clip(*limits)
    return max(1.0, float(np.max(abs(ends - np.array(center)) / np.array(unit))))
