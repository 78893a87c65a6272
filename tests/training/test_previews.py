"""The picture of a run's samples: a row for each class, where there is room for all of them."""

from __future__ import annotations

import numpy as np
import pytest

from ddpm_pipeline.training.previews import sample_grid


def cells(count: int, num_classes: int | None) -> list[list[int]]:
    """The value in the middle of each cell of a grid whose image i is all of value i."""
    images = np.repeat(np.arange(count, dtype=np.uint8), 9).reshape(count, 3, 3, 1)
    return np.asarray(sample_grid(images, num_classes))[2::4, 2::4].tolist()


def test_every_class_has_a_row() -> None:
    assert cells(6, 3) == [[0, 3], [1, 4], [2, 5]]
    assert cells(5, 3) == [[0, 3], [1, 4], [2, 128]]
    assert cells(3, 3) == [[0], [1], [2]]


@pytest.mark.parametrize("num_classes", [None, 9])
def test_without_room_for_all_classes_it_is_nearly_square(num_classes: int | None) -> None:
    assert cells(4, num_classes) == [[0, 1], [2, 3]]
