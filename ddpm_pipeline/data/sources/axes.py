"""Which axis of an array of images holds the channels.

    channels_last((28, 28, 3))                  True
    channels_last((7, 48, 80))                  False: 7 is less than both others
    channels_last((12, 12, 12), channels=12)    None: it may be either

One of 1, 3 and 4 is the number of channels where only one end of the shape is; else what the
caller says is; else the end that is shorter than both other axes.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["SHAPES", "channels_last"]

SHAPES = "(H, W), (H, W, C) or (C, H, W)"
_USUAL = {1, 3, 4}


def channels_last(shape: Sequence[int], channels: int | None = None) -> bool | None:
    """Tell whether the last axis of an image of three axes holds the channels, not the first.

    Arguments:
        shape: Of one image.
        channels: How many the caller says that it has, or None.
    Returns:
        None if it may be either.
    """
    first, _, last = shape
    tests = [first in _USUAL, last in _USUAL], [first == channels, last == channels]
    if channels is not None and channels not in _USUAL:
        tests = tests[::-1]
    shorter = [first < min(shape[1:]), last < min(shape[:-1])]
    for is_first, is_last in (*tests, shorter):
        if is_first != is_last:
            return is_last
    return None
