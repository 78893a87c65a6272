"""Sizes of images on their way to a resolution."""

from __future__ import annotations

from itertools import product

import pytest

from ddpm_pipeline.data.fitting import check_not_larger, excess_ratio, middle, scaled_size
from ddpm_pipeline.data.levels import RefusedImageError


def test_the_scaled_size_is_the_smallest_that_covers_the_sides() -> None:
    sides = range(1, 40, 3)
    for width, height, H, W in product(sides, sides, (8, 13), (8, 21)):
        w, h = scaled_size((width, height), (H, W))
        assert w >= W
        assert h >= H
        assert w == W or h == H
        # The proportions are kept but for the rounding of the longer direction.
        assert abs(w - h * width / height) <= 0.5 * max(1, width / height) + 1e-9


def test_what_covers_the_sides_already_is_left_alone() -> None:
    assert scaled_size((20, 8), (8, 16)) == (20, 8)
    assert scaled_size((16, 30), (8, 16)) == (16, 30)


def test_the_excess_is_how_many_times_more_pixels_scaling_leaves() -> None:
    for size, sides in (((640, 480), (48, 80)), ((100, 700), (48, 80)), ((80, 48), (48, 80))):
        w, h = scaled_size(size, sides)
        assert excess_ratio(size, sides) == pytest.approx(w * h / (sides[0] * sides[1]), rel=0.02)


def test_the_middle_is_the_same_from_both_sides() -> None:
    assert middle((10, 9), (4, 3)) == (3, 3)
    assert middle((80, 48), (70, 47)) == (5, 0)


def test_padding_refuses_what_is_longer_in_any_direction() -> None:
    check_not_larger((80, 48), (48, 80), "")
    with pytest.raises(RefusedImageError, match=r"81x10 is larger than resolution=\(48, 80\)"):
        check_not_larger((81, 10), (48, 80), (48, 80))
