"""Pictures of several images: every image is whole, and where it is said to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.image_samples import noise

from ddpm_pipeline.data.pictures import (
    contact_sheet,
    image_grid,
    nearest_picture,
    reconstruction_strip,
)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("count", "columns", "shape"),
    [(1, None, (1, 1)), (4, None, (2, 2)), (5, None, (2, 3)), (5, 2, (3, 2)), (3, 3, (1, 3))],
)
def test_a_grid_holds_every_image_and_grey_elsewhere(
    channels: int, count: int, columns: int | None, shape: tuple[int, int]
) -> None:
    images = noise(count, 5, 7, channels)
    grid = np.asarray(image_grid(images, columns)).reshape(-1, 8 * shape[1] + 1, channels)
    assert grid.shape[0] == 6 * shape[0] + 1
    rest = grid.astype(int)
    for i, image in enumerate(images):
        row, column = divmod(i, shape[1])
        place = np.s_[1 + 6 * row : 6 + 6 * row, 1 + 8 * column : 8 + 8 * column]
        np.testing.assert_array_equal(grid[place], image)
        rest[place] = 128
    assert (rest == 128).all()


def test_the_gap_of_a_grid_is_the_callers() -> None:
    assert image_grid(noise(4, 5, 7, 1), gap=0).size == (14, 10)
    assert image_grid(noise(4, 5, 7, 1), gap=3).size == (23, 19)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_strip_shows_time_to_the_right_and_images_below(channels: int) -> None:
    seen = torch.linspace(-1, 1, 3).reshape(3, 1, 1, 1, 1).expand(3, 2, channels, 4, 5).clone()
    seen[:, 1] *= -1
    strip = np.asarray(reconstruction_strip(seen, torch.zeros(2, channels, 4, 5)))
    assert strip.shape[:2] == (2 * 6, 4 * 7)
    corners = strip[::6, ::7].reshape(2, 4, -1)[..., 0]
    assert corners.tolist() == [[0, 128, 255, 128], [255, 128, 0, 128]]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_has_a_column_for_each_image(channels: int) -> None:
    images = torch.randint(0, 256, (5, channels, 8, 8), dtype=torch.uint8)
    first, second = images.flip(0), 255 - images
    picture = np.array(nearest_picture(images, [first, second], gap=4))
    picture = picture.reshape(28, 40, channels)
    for i in range(5):
        column = torch.from_numpy(picture[:, 8 * i : 8 * i + 8]).permute(2, 0, 1)
        assert torch.equal(column[:, :8], images[i])
        assert (column[:, 8:12] == 128).all()
        assert torch.equal(column[:, 12:20], first[i])
        assert torch.equal(column[:, 20:], second[i])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_contact_sheet_shows_each_image_in_its_place(channels: int) -> None:
    values = torch.arange(6) * 50
    images = values.to(torch.uint8).reshape(-1, 1, 1, 1).expand(6, channels, 10, 10).contiguous()
    images[:, 3:] = 255
    sheet = np.asarray(contact_sheet(images, [1.0] * 6, range(6), columns=2).convert("L"))
    assert sheet.shape == (4 + 2 * (14 + 4 + 2 * 90), 4 + 2 * 76)
    corners = [(18 + b * 198 + y, 4 + x) for b in (0, 1) for y, x in [(0, 0), (0, 76), (90, 0)]]
    for (y, x), value in zip(corners, values.tolist(), strict=True):
        assert (sheet[y + 1 : y + 71, x + 1 : x + 71] == value).all()


def test_captions_of_a_contact_sheet_are_below_the_images() -> None:
    images = torch.zeros(2, 1, 10, 10, dtype=torch.uint8)
    plain = np.asarray(contact_sheet(images, [1.0, 2.0], [7, 8], columns=1))
    other = np.asarray(contact_sheet(images, [1.0, 9.0], [7, 8], columns=1))
    changed = np.flatnonzero((plain != other).any((1, 2)))
    half = (plain.shape[0] - 4) // 2
    assert changed.min() >= 4 + half + 14 + 72  # below the second image, under its title
