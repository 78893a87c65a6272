"""The input side: every kind of source, the cache, the order of the data, the device's part."""

import pytest
import torch

from ddpm_pipeline.data import batch_indices, random_flip, seeded_generator, to_model_range


def test_every_image_once_per_epoch_over_ranks() -> None:
    seen = torch.cat(
        [
            batch_indices(step, length=24, batch_size=4, seed=3, rank=rank, world_size=2)
            for step in range(3)
            for rank in range(2)
        ]
    )
    assert sorted(seen.tolist()) == list(range(24))


def test_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size=4 on 2 processes is larger"):
        batch_indices(0, length=7, batch_size=4, seed=0, world_size=2)


def test_model_range_is_exact_to_float32() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    exact = 2 * levels.double() / 255 - 1
    torch.testing.assert_close(to_model_range(levels).double(), exact, atol=6e-8, rtol=0)


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = torch.arange(2, dtype=torch.uint8).expand(4000, 1, 1, 2)
    flipped = random_flip(images, seeded_generator(0))[:, 0, 0, 0].float().mean()
    assert abs(float(flipped) - 0.5) < 4 * 0.5 / 4000**0.5
