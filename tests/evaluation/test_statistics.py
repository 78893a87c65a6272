"""Statistics of image sets: right, cached by content, and of one size for any number of images."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.device_counts import DEVICE, DeviceCounts, stand_in_device
from helpers.processes import exit_codes, fork_ranks
from torch import Tensor, nn
from torch.testing import assert_close

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.common.distributed import process_state
from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.evaluation.features import FeatureExtractor
from ddpm_pipeline.evaluation.statistics import (
    feature_statistics,
    reference_statistics,
    sample_statistics,
)
from ddpm_pipeline.pipelines.config import SamplingOptions
from ddpm_pipeline.pipelines.sampling import load_image_sampler

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel


class Corners(nn.Module):
    """Four pixels of the image; counts how many images it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return images[:, 0, :2, :2].flatten(1).float() / 255


def corners() -> FeatureExtractor:
    return FeatureExtractor(Corners(), "corners", "none", "corners")


def some_images(count: int = 100, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8), dtype=np.uint8)


def some_data(count: int = 100, seed: int = 0) -> ImageData:
    return open_images(some_images(count, seed), resolution=8, progress=False)


def features_of(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images[:, :2, :2].reshape(len(images), 4) / 255)


@pytest.mark.parametrize("batch_size", [7, 100])
def test_statistics_are_those_of_all_features_at_once(batch_size: int) -> None:
    data, kept = some_data(), torch.tensor([0, 6, 7, 50, 99])
    found = feature_statistics(
        lambda i: data.batch(i).images, 100, corners(), kept=kept, batch_size=batch_size
    )
    features = features_of(some_images())
    assert found.moments.count == 100
    assert_close(found.moments.mean, features.mean(0), rtol=1e-6, atol=1e-6)
    assert_close(found.moments.covariance, torch.cov(features.T), rtol=1e-5, atol=1e-6)
    assert_close(found.features, features[kept].float())


def test_no_batch_waits_for_the_features() -> None:
    """The sums and the features that are kept are read once, however many batches there are."""
    data, waits = some_data(), []
    network = nn.Sequential(nn.Flatten()).to(DEVICE)
    network.register_forward_hook(lambda *_: torch.zeros(10, 4, device=DEVICE))
    extractor = replace(corners(), network=network, device=DEVICE)
    with stand_in_device():
        for count in (30, 100):
            with DeviceCounts() as counts:
                feature_statistics(
                    lambda i: data.batch(i).images,
                    count,
                    extractor,
                    kept=torch.arange(25),
                    batch_size=10,
                    progress=False,
                )
            waits.append(len(counts.waits))
            assert counts.unpinned == []
    assert waits == [3, 3]  # the sum, the outer products, and the features


def test_features_are_computed_in_float32_of_ieee() -> None:
    seen, network = [], corners().network
    network.register_forward_hook(
        lambda *_: seen.append(
            (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
        )
    )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        replace(corners(), network=network)(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == [("highest", False)]


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    def run() -> None:
        found = reference_statistics(
            some_data(130), corners(), num_kept=50, cache_dir=tmp_path / "two", progress=False
        )
        assert process_state().num_processes == 2
        torch.save((found.moments.covariance, found.features), tmp_path / "found.pt")

    assert exit_codes(fork_ranks(run, 2)) == [0, 0]
    expected = reference_statistics(
        some_data(130), corners(), num_kept=50, cache_dir=tmp_path / "one", progress=False
    )
    covariance, features = torch.load(tmp_path / "found.pt")
    assert_close(covariance, expected.moments.covariance, rtol=1e-12, atol=1e-12)
    assert torch.equal(features, expected.features)


def test_a_process_without_images_is_no_harm(tmp_path: Path) -> None:
    def run() -> None:
        found = reference_statistics(some_data(9), corners(), cache_dir=tmp_path, progress=False)
        assert found.moments.count == 9

    assert exit_codes(fork_ranks(run, 2)) == [0, 0]


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    alive: list[weakref.ref] = []
    most = 0

    def images(numbers: range) -> Tensor:
        nonlocal most
        batch = torch.zeros(len(numbers), 1, 8, 8, dtype=torch.uint8)
        alive.append(weakref.ref(batch))
        most = max(most, sum(reference() is not None for reference in alive))
        assert len(numbers) <= 10
        return batch

    found = feature_statistics(
        images, 1000, corners(), kept=torch.arange(20), batch_size=10, progress=False
    )
    assert found.moments.count == 1000
    assert most <= 2
    assert found.features.shape == (20, 4)


def test_statistics_of_samples_are_those_of_the_images_drawn(
    tiny_unet: Callable[..., UNet2DModel], tmp_path: Path
) -> None:
    DDPMPipeline(tiny_unet(), DDPMScheduler(100)).save_pretrained(tmp_path)
    options = SamplingOptions(model=str(tmp_path), num_inference_steps=2, batch_size=4)
    sampler = load_image_sampler(options)
    found = sample_statistics(sampler, corners(), 10, num_kept=6, progress=False)
    features = features_of(sampler(range(10))[..., 0])
    assert_close(found.moments.mean, features.mean(0), rtol=1e-6, atol=1e-6)
    assert_close(found.features, features[:6].float())
    assert found.seconds > 0


# The cache.


def test_reference_statistics_are_computed_once(tmp_path: Path) -> None:
    extractor, again = corners(), corners()
    options = {"num_kept": 30, "cache_dir": tmp_path, "progress": False}
    first = reference_statistics(some_data(), extractor, **options)
    second = reference_statistics(some_data(), again, **options)
    assert (extractor.network.seen, again.network.seen) == (100, 0)
    assert second.moments.count == 100
    assert torch.equal(first.moments.covariance, second.moments.covariance)
    assert torch.equal(first.features, second.features)
    assert len(first.features) == 30
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


@pytest.mark.parametrize("change", ["data", "extractor", "num_kept"])
def test_the_cache_knows_data_features_and_settings(tmp_path: Path, change: str) -> None:
    options = {"num_kept": 30, "cache_dir": tmp_path, "progress": False}
    reference_statistics(some_data(), corners(), **options)
    data, extractor = some_data(), corners()
    if change == "data":
        data = some_data(seed=1)
    elif change == "extractor":
        extractor = replace(extractor, fingerprint="other")
    else:
        options["num_kept"] = 31
    reference_statistics(data, extractor, **options)
    assert extractor.network.seen == 100


def test_the_cache_knows_the_unit_of_deep_values(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((20, 8, 8), dtype=np.float32)
    options = {"num_kept": 5, "cache_dir": tmp_path, "progress": False}
    found = []
    for high in (1.0, 4.0, 1.0):
        data = open_images(
            values, resolution=8, depth="exact", value_range=(0.0, high), progress=False
        )
        found.append(reference_statistics(data, corners(), **options).moments.covariance)
    assert torch.equal(found[0], found[2])
    assert not torch.allclose(found[0], found[1])
    assert len(list(tmp_path.iterdir())) == 2


def test_kept_features_are_a_random_part(tmp_path: Path) -> None:
    images = np.arange(100, dtype=np.uint8)[:, None, None] * np.ones((8, 8), np.uint8)
    data = open_images(images, resolution=8, progress=False)
    found = reference_statistics(data, corners(), num_kept=20, cache_dir=tmp_path, progress=False)
    numbers = (found.features[:, 0] * 255).round().int().tolist()
    assert len(set(numbers)) == 20
    assert max(numbers) > 60


def test_damaged_statistics_are_computed_again_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"cache_dir": tmp_path, "progress": False}
    first = reference_statistics(some_data(), corners(), **options)
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:40])
    second = reference_statistics(some_data(), corners(), **options)
    assert "is damaged" in caplog.text
    assert torch.equal(first.moments.total, second.moments.total)


def test_features_that_are_not_finite_are_refused() -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.full((len(images), 2), float("nan"))

    extractor = FeatureExtractor(Broken(), "broken", "none", "broken")
    data = some_data(5)
    with pytest.raises(ValueError, match="features must be finite"):
        feature_statistics(lambda i: data.batch(i).images, 5, extractor, kept=torch.arange(0))
