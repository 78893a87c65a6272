"""``ddpm score`` on a saved model and a folder of images."""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.image_samples import encoded, flat
from PIL import Image

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.cli.score import run
from ddpm_pipeline.data import (
    TRAINING_IMAGES_NAME,
    KnownImages,
    open_images,
    split_validation,
)
from ddpm_pipeline.likelihood.config import ScoreConfig
from ddpm_pipeline.likelihood.scores import scores_of_saved_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn


@pytest.fixture
def setting(tmp_path: Path, tiny_unet: Callable, monkeypatch: pytest.MonkeyPatch) -> dict:
    """A model that expects grey images, twelve of them, and one that is noise."""
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))
    unet: nn.Module = tiny_unet()
    torch.nn.init.zeros_(unet.conv_out.weight)  # it predicts x_0 = 0
    torch.nn.init.zeros_(unet.conv_out.bias)
    scheduler = DDPMScheduler(12, beta_end=0.3, prediction_type="sample")
    DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "model")
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for i in range(12):
        (folder / f"{i:02d}.png").write_bytes(flat(122 + i))
    odd = 255 * np.random.default_rng(0).integers(0, 2, (8, 8)).astype(np.uint8)
    (folder / "sub" / "odd.png").write_bytes(encoded(odd))
    return {"model": str(tmp_path / "model"), "data": str(folder)}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_odd_image_is_found_by_name(setting: dict, tmp_path: Path) -> None:
    report = scores_of_saved_model(ScoreConfig(**setting))
    rows = rows_of(tmp_path / "model")
    assert len(rows) == report.num_images == 13
    assert [row["name"] for row in rows] == [*(f"{i:02d}.png" for i in range(12)), "sub/odd.png"]
    worst = max(rows, key=lambda row: float(row["bits_per_dim"]))
    assert worst["name"] == "sub/odd.png"
    with Image.open(tmp_path / "model" / "scores.png") as sheet:
        assert sheet.width == 8 * 76 + 4
        shown = np.asarray(sheet.convert("L"))
    # Two rows of 90 pixels below a title: the likeliest is flat grey, the least likely the noise.
    assert shown[18:90, 4:76].std() == 0
    assert shown[18 + 198 : 90 + 198, 4:76].std() > 100
    assert not list((tmp_path / "model").glob("*.state"))


def test_names_in_any_bytes_are_written(setting: dict, tmp_path: Path) -> None:
    """What is not UTF-8 in a name is escaped, so that every reader of UTF-8 reads the table."""
    images = tmp_path / "images"
    (images / "03.png").rename(images / os.fsdecode(b"caf\xe9.png"))
    (images / "04.png").rename(images / 'a "b", ü.png')
    scores_of_saved_model(ScoreConfig(**setting))
    names = [row["name"] for row in rows_of(tmp_path / "model")]
    assert len(names) == 13
    assert {"caf\\xe9.png", 'a "b", ü.png', "sub/odd.png"} <= set(names)


@pytest.mark.parametrize("result", ["scores.csv", "scores.png"])
def test_results_that_could_not_be_written_are_refused_before_the_work(
    setting: dict, tmp_path: Path, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out" / result).mkdir(parents=True)
    monkeypatch.setattr("ddpm_pipeline.likelihood.scores.bound_on_images", lambda *_, **__: 1 / 0)
    with pytest.raises(IsADirectoryError, match=rf"output_dir=.*{result}' must be a file"):
        scores_of_saved_model(ScoreConfig(**setting, output_dir=str(tmp_path / "out")))


def test_old_scores_stay_until_the_new_ones_are_whole(
    setting: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {name: f"old {name}" for name in ("scores.csv", "scores.png")}
    for name, text in old.items():
        (tmp_path / "model" / name).write_text(text)

    def full(_: int) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="disk full"):
            scores_of_saved_model(ScoreConfig(**setting))
    assert {name: (tmp_path / "model" / name).read_text() for name in old} == old
    scores_of_saved_model(ScoreConfig(**setting))
    assert len(rows_of(tmp_path / "model")) == 13


def test_a_part_of_the_images_keeps_names_and_order(setting: dict, tmp_path: Path) -> None:
    config = ScoreConfig(**setting, num_images=5, num_shown=0, output_dir=str(tmp_path / "out"))
    scores_of_saved_model(config)
    names = [row["name"] for row in rows_of(tmp_path / "out")]
    assert len(names) == 5
    assert names == sorted(names)
    assert not (tmp_path / "out" / "scores.png").exists()


def test_images_without_files_go_by_their_number(setting: dict, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((3, 8, 8), np.uint8))
    data = str(tmp_path / "images.npy")
    run([setting["model"], "--data", data, "--output_dir", str(tmp_path / "out")])
    assert [row["name"] for row in rows_of(tmp_path / "out")] == ["0", "1", "2"]


def test_images_that_cannot_be_read_are_left_out_of_the_names(
    setting: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "images" / "05.png").write_bytes(b"nothing")
    scores_of_saved_model(ScoreConfig(**setting, num_shown=0))
    names = [f"{i:02d}.png" for i in range(12) if i != 5]
    assert [row["name"] for row in rows_of(tmp_path / "model")] == [*names, "sub/odd.png"]


def test_what_training_held_out_has_its_names(setting: dict, tmp_path: Path) -> None:
    data = open_images(setting["data"], resolution=8, progress=False)
    parts = split_validation(data, 4, seed=3)
    held_out = {"size": 4, "seed": 3, "split": None}
    KnownImages.of_training(*parts, held_out).save(tmp_path / "model" / TRAINING_IMAGES_NAME)
    scores_of_saved_model(ScoreConfig(**setting, split="validation"))
    assert [row["name"] for row in rows_of(tmp_path / "model")] == parts[1].names


def test_fewer_images_than_places_are_each_shown_twice(setting: dict, tmp_path: Path) -> None:
    scores_of_saved_model(ScoreConfig(**setting, num_images=2, num_shown=50))
    with Image.open(tmp_path / "model" / "scores.png") as sheet:
        assert sheet.height < 250


def test_a_negative_number_of_images_to_show_is_refused(setting: dict) -> None:
    with pytest.raises(ValueError, match="num_shown must be at least 0, got -1"):
        ScoreConfig(**setting, num_shown=-1)
