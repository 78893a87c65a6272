"""Numbers of any type onto 256 levels, with room for the rounding errors of their type alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ddpm_pipeline.data.levels import RefusedImageError, to_levels

RANGES = st.sampled_from([(0, 1), (-1, 1), (0, 255), (0, 65535), (-1024, 3071)])


@given(RANGES, st.sampled_from([np.float16, np.float32, np.float64]), st.integers(1, 2))
def test_rounding_errors_are_no_outliers(value_range: tuple, dtype: type, steps: int) -> None:
    assume(value_range[1] < float(np.finfo(dtype).max))  # 65535 is more than float16 holds
    ends = np.array(value_range, dtype)
    for _ in range(steps):
        ends = np.nextafter(ends, np.array([-np.inf, np.inf], dtype))
    np.testing.assert_array_equal(np.rint(to_levels(ends, value_range)), [0, 255])


@given(RANGES, st.sampled_from(["f4", "f8"]), st.booleans(), st.floats(0.01, 100))
def test_outliers_are_refused_and_counted(
    value_range: tuple, dtype: str, above: bool, share: float
) -> None:
    low, high = value_range
    values = np.full((2, 3), low, dtype)
    values[1, 1:] = high + share * (high - low) if above else low - share * (high - low)
    with pytest.raises(RefusedImageError, match=r"outside value_range=.*, 2 of 6 of them"):
        to_levels(values, value_range)


def test_what_float32_arithmetic_makes() -> None:
    values = np.array([1.0000001, -1.0000001], np.float32)
    assert np.rint(to_levels(values, (-1, 1))).tolist() == [255, 0]
    normalized = (np.arange(256, dtype=np.float32) / 255 - 0.5) / 0.5
    assert np.rint(to_levels(normalized, (-1, 1))).tolist() == list(range(256))


def test_rounding_errors_never_count_for_half_a_level() -> None:
    """Four of float16's are a whole level of 0 … 1, which is more than rounding explains."""
    inside, outside = (np.array([0, 1 + k * 2**-10], np.float16) for k in (1, 3))
    assert to_levels(inside, (0, 1)).tolist() == [0, 255]
    with pytest.raises(RefusedImageError, match="1 of 2 of them"):
        to_levels(outside, (0, 1))


@given(RANGES, st.sampled_from(["f2", "f4", "f8"]))
def test_levels_end_at_0_and_255(value_range: tuple, dtype: str) -> None:
    assume(value_range[1] < float(np.finfo(dtype).max))
    ends = np.nextafter(np.array(value_range, dtype), np.array([-np.inf, np.inf], dtype))
    assert to_levels(ends, value_range).tolist() == [0, 255]


def test_integers_have_no_rounding_errors() -> None:
    with pytest.raises(RefusedImageError, match="1 of 2 of them"):
        to_levels(np.array([0, 65536]), (0, 65535))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite(bad: float) -> None:
    with pytest.raises(RefusedImageError, match="NaN or infinite"):
        to_levels(np.array([0.5, bad]), (0, 1))
