"""What is said before the first update, and by a dry run."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.training_runs import image_data, tiny_config
from PIL import Image

from ddpm_pipeline.training.data import data_from_images, open_training_data
from ddpm_pipeline.training.description import classes_of, describe_data
from ddpm_pipeline.training.rehearsal import UpdateTime
from ddpm_pipeline.training.run import dry_run, train


def test_images_classes_and_changes_are_said(tmp_path: Path) -> None:
    for i, name in enumerate(["cat", "cat", "dog"]):
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), 50 * i, np.uint8)).save(
            tmp_path / "photos" / name / f"{i}.png"
        )
    config = tiny_config(
        tmp_path,
        train_data_dir=str(tmp_path / "photos"),
        class_conditional=True,
        embeddings=3,
        channels=3,
    )
    (tmp_path / "photos" / "dog" / "broken.png").write_bytes(b"no")
    (tmp_path / "photos" / "dog" / "x.heic").touch()
    text = describe_data(config, open_training_data(config))
    assert text.splitlines() == [
        f"images      3 of {tmp_path / 'photos'}, 8×8, 3 channels",
        "classes     2: cat 2, dog 1 (the names of folders)",
        "found       16×16 3; RGB 3",
        "changed     resized 3",
        "skipped     1 not an image (dog/broken.png)",
        "not read    1 .heic (dog/x.heic)",
    ]
    held_out = config.replace(validation_size=1)
    assert "held out    1 (validation_size=1 of the same images, seed 0)" in describe_data(
        held_out, open_training_data(held_out)
    )


def test_the_split_that_was_taken_is_said(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / "photos" / part).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "photos" / part / "0.png")
    config = tiny_config(tmp_path, train_data_dir=str(tmp_path / "photos"), train_batch_size=1)
    first, *others = describe_data(config, open_training_data(config)).splitlines()
    assert first == f"images      1 of {tmp_path / 'photos'}, split 'train', 8×8, 1 channel"
    assert others == ["found       8×8 1; L 1", "changed     nothing"]


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    data = replace(image_data(3, labels=[0, 2, 2]), num_classes=4, class_names=tuple("abcd"))
    data = data_from_images(tiny_config(tmp_path), data)
    assert classes_of(data) == "4: a 1, b 0, c 2, d 0 (no images of 'b', 'd')"


@pytest.mark.parametrize(("count", "end"), [(12, "11 1"), (13, "11 1, … 1 more")])
def test_of_many_classes_twelve_are_named(tmp_path: Path, count: int, end: str) -> None:
    data = data_from_images(tiny_config(tmp_path), image_data(count, labels=list(range(count))))
    assert classes_of(data).startswith(f"{count}: 0 1, 1 1, ")
    assert classes_of(data).endswith(f", {end}")


def test_it_is_said_before_the_first_update(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ddpm_pipeline"):
        train(tiny_config(tmp_path, max_train_steps=1, lr_warmup_steps=0))
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith(f"images      40 of {tmp_path / 'images.npy'}, 8×8, 1 channel")
    assert said[1] == "training on 1 process (cpu)"


def test_a_dry_run_times_updates_and_writes_nothing(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, max_train_steps=1000, class_conditional=True, embeddings=3)
    labels = [i % 2 for i in range(40)]
    numbers = dry_run(config, train_data=image_data(labels=labels))
    time = numbers.update_time
    assert 0 < time.seconds < 5
    assert time.count >= 3
    assert time.standard_error >= 0
    assert not (tmp_path / "run").exists()
    text = str(numbers)
    assert "time per update" in text
    assert "time of the run" in text
    assert "classes            2: 0 20, 1 20" in text
    assert dry_run(config, train_data=image_data(labels=labels), measure=False).update_time is None


def test_times_are_in_fitting_units(tmp_path: Path) -> None:
    numbers = dry_run(tiny_config(tmp_path, max_train_steps=1000), measure=False)
    text = str(numbers.timed(UpdateTime(10.0, 0.5, 4)))
    assert "time per update    10 s ± 0.5 s (measured on 4 updates)" in text
    assert "time of the run    2.78 h ± 8.33 min" in text
