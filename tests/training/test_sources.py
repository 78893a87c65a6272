"""Where the images of a run come from, and which options of a pretrained model count for them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.training_runs import TINY_UNET
from PIL import Image

from ddpm_pipeline import DDPMPipeline, TrainingConfig
from ddpm_pipeline.cli.arguments import parse
from ddpm_pipeline.data import ReadingOptions
from ddpm_pipeline.data.model_images import open_model_images
from ddpm_pipeline.likelihood import BoundConfig
from ddpm_pipeline.networks import facts_of
from ddpm_pipeline.training.data import open_training_data
from ddpm_pipeline.training.run import train

PATTERN = r"(?P<name>.*)_b(?P<band>[0-9]+)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of three bands in a file each, whole and as an array, and a model of them."""
    root = tmp_path_factory.mktemp("sources")
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    np.save(root / "x.npy", values)
    (root / "bands").mkdir()
    (root / "whole").mkdir()
    for i, image in enumerate(values):
        Image.fromarray(image).save(root / f"whole/{i}.png")
        for band in range(3):
            Image.fromarray(image[..., band]).save(root / f"bands/s{i}_b{band}.png")
    (root / "unet.json").write_text(json.dumps(TINY_UNET | {"in_channels": 3, "out_channels": 3}))
    network = {"model_config_name_or_path": str(root / "unet.json"), "resolution": 8}
    train(run_config(root, root / "model", "bands", stack_pattern=PATTERN, **network))
    return root


def run_config(root: Path, output: Path, data: str, **options: Any) -> TrainingConfig:
    short = {"max_train_steps": 1, "train_batch_size": 4, "eval_batch_size": 1}
    return TrainingConfig(
        train_data_dir=str(root / data),
        output_dir=str(output),
        cache_dir=str(root / "cache"),
        ddpm_num_inference_steps=1,
        mixed_precision="no",
        num_threads=1,
        **short | options,
    )


def going_on(root: Path, output: Path, data: str, **options: Any) -> TrainingConfig:
    """A run without an update from the model of files for bands."""
    of_model = {"pretrained_model_name_or_path": str(root / "model"), "max_train_steps": 0}
    return run_config(root, output, data, **of_model | options)


def remembered(model: Path) -> str | None:
    facts = facts_of(DDPMPipeline.from_pretrained(model).unet)
    return (facts.reading or {}).get("stack_pattern")


@pytest.mark.parametrize(
    ("data", "held_out", "counts"), [("bands", "x.npy", "validation"), ("x.npy", "bands", "train")]
)
def test_a_pattern_that_is_remembered_is_left_out_only_where_it_has_no_meaning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    data: str, held_out: str, counts: str,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    train(going_on(folder, tmp_path / "run", data, validation_data_dir=str(folder / held_out)))
    unit = "train_data_dir" if counts == "train" else "validation_data_dir"
    notes = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    named = f"stack_pattern={PATTERN!r} has no meaning for {str(folder / 'x.npy')!r}"
    said = "which is no folder of images; it is the pretrained model's, and left out there"
    assert notes == [f"{unit}: {named}, {said}"]
    takes = caplog.text[caplog.text.index("takes  ") :].splitlines()[0]
    assert ("stack_pattern" in takes) == (data == "bands")
    assert remembered(tmp_path / "run") == (PATTERN if data == "bands" else None)
    config = run_config(
        folder, tmp_path, data, validation_data_dir=str(folder / held_out), resolution=8,
        stack_pattern=PATTERN,
    )  # fmt: skip
    opened = open_training_data(config, ("stack_pattern",))
    expected = np.load(folder / "x.npy").transpose(0, 3, 1, 2)
    for images in (opened.train, opened.validation):
        assert np.array_equal(images.values.numpy(), expected)


def test_a_pattern_that_is_given_is_refused_by_the_name_of_the_data(
    folder: Path, tmp_path: Path
) -> None:
    data = {"validation_data_dir": str(folder / "x.npy"), "stack_pattern": PATTERN}
    said = r"^validation_data_dir: stack_pattern=.* has no meaning for '.*x\.npy'"
    for config in (
        run_config(folder, tmp_path, "bands", resolution=8, **data),
        going_on(folder, tmp_path, "bands", **data),
    ):
        with pytest.raises(ValueError, match=said):
            train(config)
    data["validation_data_dir"] = str(folder / "whole")
    with pytest.raises(ValueError, match=r"^validation_data_dir: stack_pattern=.* does not match"):
        open_training_data(run_config(folder, tmp_path, "bands", resolution=8, **data))


def test_none_undoes_a_pattern_that_is_remembered(folder: Path, tmp_path: Path) -> None:
    said = (
        "does not match 8 of 8 images, as .*; that is the pattern of the model's training "
        "images: give stack_pattern='none' if each file is an image"
    )
    with pytest.raises(ValueError, match=f"^train_data_dir: .* {said}"):
        train(going_on(folder, tmp_path / "run", "whole"))
    train(going_on(folder, tmp_path / "run", "whole", stack_pattern="none"))
    assert remembered(tmp_path / "run") is None

    unet = DDPMPipeline.from_pretrained(folder / "model").unet
    where = {"cache_dir": folder / "cache"}
    with pytest.raises(ValueError, match=said):
        open_model_images(folder / "whole", unet, **where)
    argv = [str(folder / "model"), "--data", str(folder / "whole"), "--stack_pattern"]
    typed = parse(BoundConfig, [*argv, "none"], prog="ddpm bound", positional=("model",))
    found = open_model_images(folder / "whole", unet, reading=ReadingOptions.of(typed), **where)
    assert np.array_equal(found.values.numpy(), np.load(folder / "x.npy").transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match=r"does not match 8 of 8 images, as [^;]*$"):
        open_model_images(folder / "whole", unet, reading=ReadingOptions(stack_pattern=PATTERN))
