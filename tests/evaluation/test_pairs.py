"""Samples beside the truth of their conditions: PSNR and SSIM, and which rows they have."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training_runs import blobs

from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.evaluation.pairs import measure_pairs, paired, pairs_text


def test_the_psnr_is_that_of_a_known_error(tmp_path: Path) -> None:
    images = blobs(count=8, size=12)
    np.savez(tmp_path / "x.npz", images=images, low=images[:, ::2, ::2])
    data = open_images(tmp_path / "x.npz", resolution=12, progress=False, condition_on="low")
    rows = torch.tensor([3, 1, 7])
    levels = torch.from_numpy(images[rows.numpy()])[:, None].int()

    def draw(numbers: list[int]) -> torch.Tensor:
        own = levels[list(numbers)]
        return torch.where(own > 127, own - 5, own + 5).to(torch.uint8)

    pytest.importorskip("torchmetrics")
    found = measure_pairs(draw, data, rows)
    assert found["psnr"] == pytest.approx(20 * math.log10(255 / 5), abs=1e-4)
    assert found["psnr_standard_error"] == pytest.approx(0, abs=1e-4)
    assert found["num_images"] == 3
    assert 0 < found["ssim"] < 1
    assert pairs_text(found)["PSNR"].endswith("dB on 3 images")
    assert measure_pairs(lambda numbers: levels[list(numbers)].byte(), data, rows)[
        "ssim"
    ] == pytest.approx(1)
    assert measure_pairs(draw, data, None) is None

    def draw_one_exact(numbers: list[int]) -> torch.Tensor:
        return torch.where(torch.tensor(numbers)[:, None, None, None] == 1, levels, draw(numbers))

    with_exact = measure_pairs(lambda k: draw_one_exact(k).byte(), data, rows)
    rounding = math.sqrt(np.mean((np.arange(-500, 501) / 1000) ** 2))  # of a level
    parts = [20 * math.log10(255 / error) for error in (5, rounding, 5)]
    assert with_exact["psnr"] == pytest.approx(np.mean(parts), abs=0.01)
    assert with_exact["psnr_standard_error"] == pytest.approx(
        np.std(parts, ddof=1) / 3**0.5, abs=0.01
    )
    json.dumps(with_exact, allow_nan=False)
    assert paired(sampler=None, data=open_images(images, resolution=12), count=2, seed=0) == (
        None,
        None,
    )
