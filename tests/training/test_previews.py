"""The picture of a run's samples: a row for each class, where there is room for all of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.conditioned_models import CLASSES, record_told, write_conditioned
from helpers.training_runs import tiny_config
from PIL import Image

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.common import stream_generator
from ddpm_pipeline.training.data import open_training_data
from ddpm_pipeline.training.previews import sample_grid
from ddpm_pipeline.training.run import train


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


def test_a_grid_is_guided_by_another_model(tmp_path: Path, random_last_layers: None) -> None:
    options = {"max_train_steps": 2, "checkpointing_steps": 0, "save_images_steps": 0}
    train(tiny_config(tmp_path / "weak", seed=5, **options))
    guided = tiny_config(
        tmp_path,
        preview_guidance_scale=3.0,
        preview_guidance_model=str(tmp_path / "weak/run"),
        preview_guidance_interval=(0, 12),
        **options,
    )
    train(guided)
    pipe = DDPMPipeline.from_pretrained(tmp_path / "run")
    images = pipe(
        2,
        [stream_generator("previews", 0, i) for i in range(2)],
        2,
        "np",
        solver="ddim",
        guidance_scale=3.0,
        guidance_model=tmp_path / "weak/run",
        guidance_interval=(0, 12),
    ).images
    expected = sample_grid((images * 255).round().astype(np.uint8), None)
    with Image.open(tmp_path / "run/samples/step-0000002.png") as grid:
        assert np.array_equal(np.asarray(grid), np.asarray(expected))
    saved = (tmp_path / "run/training_config.json").read_text()
    assert str(tmp_path) not in saved


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preview_guidance_scale": 2.0}, "preview_guidance_scale=2.0 needs preview_guidance_mod"),
        ({"preview_guidance_model": "x"}, "preview_guidance_model needs a preview_guidance_scale"),
        ({"preview_guidance_scale": float("nan")}, "preview_guidance_scale must be a number"),
        (
            {"preview_guidance_interval": (5, 3)},
            "preview_guidance_interval must be two timesteps from 0 on, the lower first",
        ),
        (
            {
                "preview_guidance_scale": 2.0,
                "preview_guidance_model": "x",
                "preview_guidance_interval": (3, 20),
            },
            "must end below ddpm_num_steps=20",
        ),
        (
            {"preview_guidance_scale": 2.0, "preview_guidance_model": "./nowhere"},
            "preview_guidance_model: .*nowhere",
        ),
    ],
)
def test_guides_of_grids_that_cannot_be_are_refused_before_an_update(
    tmp_path: Path, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(tiny_config(tmp_path, **options))
    assert not (tmp_path / "run/metrics.jsonl").exists()


def test_the_class_and_the_condition_of_a_sample_are_of_one_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes without training images cannot be drawn, though some are held out."""
    write_conditioned(tmp_path / "x.npz", 30)
    config = tiny_config(
        tmp_path,
        class_conditional=True,
        embeddings=CLASSES + 1,
        train_data_dir=str(tmp_path / "x.npz"),
        resolution=4,
        condition_on="low",
        eval_batch_size=8,
        max_train_steps=1,
    )
    unet = json.loads((tmp_path / "unet.json").read_text())
    (tmp_path / "unet.json").write_text(json.dumps(unet | {"in_channels": 2, "sample_size": 4}))
    told = record_told(monkeypatch)
    train(config)
    assert {label for label, _ in told} == set(range(CLASSES))
    assert all(label == shown for label, shown in told)
    data = open_training_data(config)
    counts = (0, *data.class_counts[1:])
    shown = replace(data, validation=data.train, class_counts=counts).shown
    assert set(shown.labels.tolist()) == {1, 2}
