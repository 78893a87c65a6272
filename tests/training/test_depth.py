"""A run on values of 16 bits or of floating point, and the model that comes of it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.exact_fields import PointMass
from helpers.training_runs import TINY_UNET

from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.likelihood.config import BoundConfig
from ddpm_pipeline.likelihood.saved_model import bound_of_saved_model
from ddpm_pipeline.networks.model_facts import ModelFacts, facts_of, set_facts
from ddpm_pipeline.pipelines.config import SampleConfig
from ddpm_pipeline.pipelines.pipeline import DDPMPipeline
from ddpm_pipeline.pipelines.sampling import sample_images
from ddpm_pipeline.schedulers.scheduler import DDPMScheduler
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.run import train
from tests.training.test_shapes import OPEN_IN_STOCK, run_config, tiny_config

if TYPE_CHECKING:
    from pathlib import Path


def write_values(folder: Path, dtype: str) -> np.ndarray:
    draws = np.random.default_rng(0).normal(300, 40, (12, 7, 8, 12))
    values = draws.astype(dtype)
    np.save(folder / "x.npy", values)
    return values


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("uint16", {"loss": "hybrid", "variance_type": "learned_range"}),
        pytest.param("float32", {"random_flip": True}, marks=pytest.mark.slow),
    ],
)
def test_a_model_of_deep_values(tmp_path: Path, dtype: str, options: dict) -> None:
    values = write_values(tmp_path, dtype)
    if "loss" in options:
        wide = tiny_config(
            tmp_path, "wide.json", sample_size=[8, 12], in_channels=7, out_channels=14
        )
        options = options | {"model_config_name_or_path": str(wide)}
    held_out = {"validation_size": 2, "validate_bound_steps": 2, "validate_bound_images": 2}
    train(run_config(tmp_path, depth="exact", **held_out, **options))
    model = tmp_path / "model"
    pipe = DDPMPipeline.from_pretrained(model)
    scale = facts_of(pipe.unet).scale
    assert scale.dtype == dtype
    largest = np.abs((values.transpose(0, 2, 3, 1) - scale.center) / np.array(scale.unit)).max()
    assert pipe.scheduler.config.clip_sample_range == pytest.approx(largest, rel=1e-5)
    drawn = pipe(num_inference_steps=2, output_type="array").images
    assert (drawn.dtype, drawn.shape) == (np.dtype(dtype), (1, 8, 12, 7))
    options = {"model": str(model), "num_inference_steps": 2, "num_images": 2}
    sample_images(SampleConfig(output=str(tmp_path / "s.npz"), **options))
    assert np.load(tmp_path / "s.npz")["arr_0"].dtype == dtype
    measured = {"num_images": 2, "num_timestep_samples": 2, "cache_dir": str(tmp_path / "cache")}
    report = bound_of_saved_model(
        BoundConfig(model=str(model), data=str(tmp_path / "x.npy"), **measured)
    )
    assert report.settings.decoder == ("discretized" if dtype == "uint16" else "continuous")
    assert math.isfinite(report.bits_per_dim)
    command = [sys.executable, "-c", OPEN_IN_STOCK, model, tmp_path / "stock.npy"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert np.load(tmp_path / "stock.npy").shape == (2, 8, 12, 7)
    np.save(tmp_path / "y.npy", values.astype("int16"))
    other = BoundConfig(model=str(model), data=str(tmp_path / "y.npy"), **measured)
    with pytest.raises(ValueError, match="has images of int16, kept exactly, and the model was"):
        bound_of_saved_model(other)


def going_on(folder: Path, **options: object) -> TrainingConfig:
    start = {
        "pretrained_model_name_or_path": str(folder / "model"),
        "train_data_dir": str(folder / "more.npy"),
        "output_dir": str(folder / "more"),
        "cache_dir": str(folder / "cache"),
    }
    names = ("train_batch_size", "eval_batch_size", "ddpm_num_inference_steps", "num_threads")
    kept = {name: getattr(run_config(folder), name) for name in names}
    return TrainingConfig(**kept | start | {"max_train_steps": 2} | options)


def test_fine_tuning_keeps_the_unit(tmp_path: Path) -> None:
    values = write_values(tmp_path, "float32")
    train(run_config(tmp_path, depth="exact", picture_bands=(6, 2, 0)))
    before = facts_of(DDPMPipeline.from_pretrained(tmp_path / "model").unet)
    np.save(tmp_path / "more.npy", 2 * values + 500)
    config = going_on(tmp_path, validation_size=2, checkpointing_steps=1)
    train(config, should_stop=lambda step: step == 1)
    assert train(config).finished  # from the checkpoint, which needs the model no more
    after = facts_of(DDPMPipeline.from_pretrained(tmp_path / "more").unet)
    assert (after.scale.center, after.scale.unit) == (before.scale.center, before.scale.unit)
    assert after.picture_bands == before.picture_bands == (6, 2, 0)
    kept = json.loads((tmp_path / "more" / "training_config.json").read_text())
    assert kept["depth"] == "exact"
    seen = np.load(tmp_path / "more.npy").transpose(0, 2, 3, 1) - np.array(after.scale.center)
    assert after.scale.largest <= np.abs(seen / np.array(after.scale.unit)).max() * (1 + 1e-6)
    assert after.scale.largest > before.scale.largest
    unchanged = going_on(tmp_path, output_dir=str(tmp_path / "same"), max_train_steps=0)
    train(unchanged)
    assert facts_of(DDPMPipeline.from_pretrained(tmp_path / "same").unet).scale == before.scale
    fresh = {"output_dir": str(tmp_path / "no")}
    with pytest.raises(ValueError, match=r"value_range=\(0, 9999\) is another unit than that of"):
        train(going_on(tmp_path, value_range=(0, 9999), **fresh))
    with pytest.raises(ValueError, match="has images of uint8, kept as bytes, and the model was"):
        train(going_on(tmp_path, depth="bytes", value_range=(0, 9999), **fresh))


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
def test_a_point_mass_gives_every_value_of_16_bits_exactly(prediction_type: str) -> None:
    values = np.random.default_rng(0).permutation(2**16).astype(np.uint16).reshape(1, 256, 256, 1)
    data = open_images(values, resolution=256, depth="exact", progress=False)
    (x_0,) = data.model_values(data.batch([0]).images)
    scheduler = DDPMScheduler(
        prediction_type=prediction_type, clip_sample_range=data.scale.largest
    )
    unet = PointMass.from_config(TINY_UNET | {"sample_size": 256})
    signal = scheduler.schedule.alpha_bar(torch.arange(1000))
    unet.keep(x_0, None if prediction_type == "sample" else signal)
    set_facts(unet, ModelFacts(values=data.scale.to_dict()))
    pipe = DDPMPipeline(unet, scheduler)
    pipe.set_progress_bar_config(disable=True)
    for solver in ("ddim", "ddpm"):
        drawn = pipe(num_inference_steps=4, output_type="array", solver=solver).images
        assert drawn.dtype == np.uint16
        assert np.array_equal(drawn, values)


def test_a_model_of_bytes_gives_bytes() -> None:
    unet = PointMass.from_config(TINY_UNET)
    k = torch.arange(64).view(1, 8, 8)
    pipe = DDPMPipeline(unet.keep(2 * k / 255 - 1), DDPMScheduler(prediction_type="sample"))
    drawn = pipe(num_inference_steps=2, output_type="array").images
    assert drawn.dtype == np.uint8
    assert drawn.ravel().tolist() == list(range(64))
