"""Distances while training: their values, their bias, their resumption, and who takes part."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.features import MEANS_OF_QUARTERS
from helpers.training_runs import (
    assert_same,
    blobs,
    image_data,
    metrics,
    outcome,
    run_forked,
    tiny_config,
)
from torch.testing import assert_close

from ddpm_pipeline import DDPMPipeline, train
from ddpm_pipeline.common.randomness import stream_generator
from ddpm_pipeline.data.held_out import split_validation
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.evaluation.features import load_features
from ddpm_pipeline.evaluation.metrics import gaussian_frechet_distance
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.run import dry_run

pytestmark = pytest.mark.usefixtures("random_last_layers")

COUNT = 12


def config_of(folder: Path, **options: Any) -> TrainingConfig:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "means.py").write_text(MEANS_OF_QUARTERS)
    defaults = {
        "validation_size": 0.4,
        "validate_fid_steps": 5,
        "validate_fid_features": str(folder / "means.py"),
        "validate_fid_images": COUNT,
    }
    return tiny_config(folder, **defaults | options)


def distances(run: Path) -> dict[int, dict[str, float]]:
    return {entry["step"]: entry for entry in metrics(run) if "distance" in entry}


def fitted(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return features.double().mean(0), features.T.double().cov()


def test_it_is_the_distance_of_the_models_samples(tmp_path: Path) -> None:
    """Against the saved model, drawn from by hand."""
    config = config_of(tmp_path, seed=3)
    run = train(config).output_dir
    found = distances(run)
    assert sorted(found) == [5, 10, 12]
    pipe = DDPMPipeline.from_pretrained(run)
    images = pipe(
        batch_size=COUNT,
        generator=[stream_generator("distances", 3, i) for i in range(COUNT)],
        num_inference_steps=2,
        solver="ddim",
        output_type="np",
    ).images
    drawn = torch.from_numpy((images * 255).round().astype(np.uint8)).permute(0, 3, 1, 2)
    data = open_images(blobs(), resolution=8, progress=False)
    extractor = load_features(config.validate_fid_features)
    train_images, held_out = split_validation(data, 0.4, 3)
    real = extractor(train_images.batch(range(len(train_images))).images)
    expected = gaussian_frechet_distance(*fitted(extractor(drawn)), *fitted(real))
    assert_close(found[12]["distance"], expected.item(), rtol=1e-4, atol=1e-7)
    assert len(held_out) == 16
    for name in (
        "kid",
        "kid_standard_error",
        "distance_of_real",
        "copied_share",
        "copied_p_value",
    ):
        assert np.isfinite(found[12][name])
    assert found[5]["distance_of_real"] == found[12]["distance_of_real"]
    record = json.loads((run / "training_record.json").read_text())
    assert record["distances"]["distance"] == found[12]["distance"]
    assert TrainingConfig.from_dict(record["options"]).validate_fid_steps == 0


def test_real_images_are_left_out_where_there_are_too_few(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = train(config_of(tmp_path, validation_size=0.1)).output_dir
    assert "distance_of_real" not in distances(run)[12]
    assert "kid" in distances(run)[12]
    assert "biased upwards, and there are 4 held-out images" in caplog.text
    alone = train(config_of(tmp_path / "alone", validation_size=0.0)).output_dir
    assert distances(alone)[12].keys() == {"step", "distance", "kid", "kid_standard_error"}


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_measures_as_one_that_was_not(tmp_path: Path, processes: int) -> None:
    options = {"keep": "best", "best_by": "distance", "early_stop": 3}
    options["train_batch_size"] = 4 // processes
    whole = config_of(tmp_path / "whole", **options)
    assert run_forked(whole, processes=processes) == [0] * processes
    config = config_of(tmp_path / "killed", **options)
    run = Path(config.output_dir)
    when = lambda: bool((run / "metrics.jsonl").exists() and distances(run))  # noqa: E731
    assert run_forked(config, when, processes=processes) == [-signal.SIGKILL] * processes
    assert run_forked(config, processes=processes) == [0] * processes
    assert_same(outcome(run), outcome(Path(whole.output_dir)))


def test_two_processes_draw_what_one_does(tmp_path: Path) -> None:
    """Before the first update the weights are the same; afterwards updates round otherwise."""
    found = []
    for processes in (1, 2):
        options = {"train_batch_size": 4 // processes, "learning_rate": 1e-12}
        config = config_of(tmp_path / str(processes), validate_fid_images=11, **options)
        assert run_forked(config, processes=processes) == [0] * processes
        found.append(distances(Path(config.output_dir))[12])
    for name in ("distance", "distance_of_real", "kid"):
        assert_close(found[0][name], found[1][name], rtol=1e-3, atol=1e-5)


def test_classes_are_drawn_as_often_as_there_are_images_of_them(tmp_path: Path) -> None:
    config = config_of(
        tmp_path, validation_size=0.0, class_conditional=True, embeddings=3, max_train_steps=5
    )
    labels = [0] * 30 + [1] * 10
    run = train(config, train_data=image_data(labels=labels)).output_dir
    assert np.isfinite(distances(run)[5]["distance"])


def test_samples_with_the_conditions_of_real_images_are_not_tested_for_copies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = blobs()
    np.savez(tmp_path / "x.npz", images=images, low=images[:, ::2, ::2])
    config = config_of(
        tmp_path, train_data_dir=str(tmp_path / "x.npz"), condition_on="low", max_train_steps=5
    )
    unet = json.loads((tmp_path / "unet.json").read_text())
    (tmp_path / "unet.json").write_text(json.dumps(unet | {"in_channels": 2}))
    found = distances(train(config).output_dir)[5]
    assert np.isfinite(found["distance_of_real"])
    assert not [name for name in found if name.startswith("copied")]
    assert "the test of copying is left out: samples have the conditions of" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validate_fid_images": 4}, "validate_fid_images: the Fréchet distance in 4 features"),
        ({"validate_fid_features": "nothing.py"}, "features='nothing.py' does not exist"),
    ],
)
def test_mistakes_are_named_before_the_run(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dry_run(config_of(tmp_path, **options), measure=False)
