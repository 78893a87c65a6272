"""Copies of reference images are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.processes import exit_codes, fork_ranks
from torch import nn

from ddpm_pipeline.common.distributed import process_state
from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.evaluation.features import FeatureExtractor
from ddpm_pipeline.evaluation.nearest import nearest_images

PIXELS = FeatureExtractor(nn.Flatten(), "pixels", "none", "pixels")


def some_data() -> ImageData:
    images = np.random.default_rng(0).integers(0, 256, (90, 8, 8), dtype=np.uint8)
    return open_images(images, resolution=8, progress=False)


@pytest.mark.parametrize("batch_size", [1, 13, 200])
def test_copies_are_found(batch_size: int) -> None:
    data = some_data()
    copies = data.batch([4, 70, 33]).images
    distances, numbers = nearest_images(copies, data, PIXELS, count=4, batch_size=batch_size)
    assert numbers[:, 0].tolist() == [4, 70, 33]
    assert torch.equal(distances[:, 0], torch.zeros(3).double())
    everything = data.batch(range(90)).images.flatten(1).double()
    expected = (copies.flatten(1).double()[:, None] - everything).norm(dim=2).sort(dim=1)
    assert torch.equal(numbers, expected.indices[:, :4])
    torch.testing.assert_close(distances, expected.values[:, :4])


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    data = some_data()
    images = data.batch([4, 70]).images

    def run() -> None:
        found = nearest_images(images, data, PIXELS, batch_size=20)
        assert process_state().num_processes == 2
        torch.save(found, tmp_path / f"{process_state().process_index}.pt")

    assert exit_codes(fork_ranks(run, 2)) == [0, 0]
    expected = nearest_images(images, data, PIXELS)
    for rank in range(2):
        distances, numbers = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(numbers, expected[1])
        assert torch.equal(distances, expected[0])
