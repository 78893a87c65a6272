"""Bits per dimension in an evaluation: on which images, of which chain."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import diffusers
import numpy as np
import pytest
import torch

from ddpm_pipeline import DDPMPipeline, DDPMScheduler, variational_bound
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.pixels import to_model_range
from ddpm_pipeline.evaluation.config import EvaluateConfig
from ddpm_pipeline.evaluation.held_out_bound import measure_bound, open_held_out

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def sampler(tiny_unet: Callable[..., diffusers.UNet2DModel]) -> SimpleNamespace:
    """As much of a sampler as the bound looks at, around a real model."""
    pipe = DDPMPipeline(tiny_unet(), DDPMScheduler(20))
    return SimpleNamespace(pipe=pipe, saved_scheduler=pipe.scheduler)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))
    for i, name in enumerate(("data", "held_out")):
        images = np.random.default_rng(i).integers(0, 256, (6 + i, 8, 8), dtype=np.uint8)
        other = np.random.default_rng(5 + i).integers(0, 256, (3 + i, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images, images_test=other)
    return tmp_path


def options(folder: Path, **more: object) -> EvaluateConfig:
    more = {key: str(folder / f"{v}.npz") if "data" in key else v for key, v in more.items()}
    return EvaluateConfig(**{"model": str(folder), "data": str(folder / "data.npz")} | more)


def measured(config: EvaluateConfig, sampler: SimpleNamespace) -> dict[str, object] | None:
    data = open_held_out(config, sampler)
    return None if data is None else measure_bound(config, sampler, data)


@pytest.mark.parametrize(
    ("more", "name", "split", "count"),
    [
        ({}, "data", None, 6),
        ({"split": "test"}, "data", "test", 3),
        ({"bound_split": "test"}, "data", "test", 3),
        ({"bound_data": "held_out"}, "held_out", None, 7),
        ({"bound_data": "held_out", "split": "test"}, "held_out", None, 7),
        ({"bound_data": "held_out", "bound_split": "test"}, "held_out", "test", 4),
        ({"bound_images": 2}, "data", None, 2),
    ],
)
def test_the_images_are_held_out_ones_or_else_the_reference(
    sampler: SimpleNamespace,
    folder: Path,
    more: dict[str, object],
    name: str,
    split: str | None,
    count: int,
) -> None:
    found = measured(options(folder, **more), sampler)
    assert (found["data"], found["split"]) == (f"{name}.npz", split)
    assert found["num_images"] == count
    if "bound_images" not in more:
        expected = open_images(folder / f"{name}.npz", resolution=8, split=split, progress=False)
        assert found["fingerprint"] == expected.subset(range(count)).fingerprint
    assert found["seed"] == 0
    assert found == json.loads(json.dumps(found))


def test_no_images_leave_it_out(sampler: SimpleNamespace, folder: Path) -> None:
    assert measured(options(folder, bound_images=0), sampler) is None


def test_a_scheduler_of_diffusers_is_measured_as_its_own_chain(
    sampler: SimpleNamespace, folder: Path
) -> None:
    """All timesteps of all images, so that the number is the whole bound and not an estimate."""
    ours = sampler.saved_scheduler
    sampler.saved_scheduler = diffusers.DDIMScheduler.from_config(ours.config)
    found = measured(options(folder, bound_timesteps=19, seed=4), sampler)
    images = open_images(folder / "data.npz", resolution=8, progress=False).batch(range(6)).images
    expected = variational_bound(
        sampler.pipe.unet,
        ours,
        to_model_range(images),
        num_timestep_samples=19,
        generator=torch.Generator().manual_seed(1),
    )
    error = expected.standard_error + found["standard_error"]
    assert abs(found["bits_per_dim"] - expected.bits_per_dim) < 4 * error
    assert found["bits_per_dim"] == pytest.approx(expected.bits_per_dim, rel=0.05)


def test_images_of_another_shape_are_refused(sampler: SimpleNamespace, folder: Path) -> None:
    np.savez(folder / "large.npz", images=np.zeros((3, 16, 16), np.uint8))
    with pytest.raises(ValueError, match="another size than the model's 8×8; fit='resize'"):
        measured(options(folder, bound_data="large"), sampler)
    found = measured(options(folder, bound_data="large", fit="resize"), sampler)
    assert found["changes"] == {"resized": 3}
    with pytest.raises(ValueError, match=r"bound_images must be an integer from 1 to 6, .* got 7"):
        measured(options(folder, bound_images=7), sampler)
