"""Which axis of an array holds the channels."""

from __future__ import annotations

import pytest

from ddpm_pipeline.data.sources.axes import channels_last


@pytest.mark.parametrize(
    ("shape", "channels", "last"),
    [
        ((28, 28, 3), None, True),
        ((3, 28, 28), None, False),
        ((3, 8, 3), None, None),
        ((7, 48, 80), None, False),
        ((48, 80, 7), None, True),
        ((7, 48, 7), None, None),
        ((12, 12, 12), None, None),
        ((12, 12, 12), 12, None),
        ((6, 12, 9), 6, False),
        ((6, 12, 9), 9, True),
        ((28, 28, 3), 28, False),
        ((3, 28, 1), 3, False),
        ((1, 28, 28), 3, False),
    ],
)
def test_an_end_of_the_shape(shape: tuple[int, ...], channels: int | None, last: bool) -> None:
    assert channels_last(shape, channels) is last
