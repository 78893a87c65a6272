"""bound, score, calibrate and evaluate read images as training did, or as they are told."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pytest
from helpers.image_samples import encoded, flat, noise, write_folder, write_tar
from PIL import Image

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.cli.commands import main
from ddpm_pipeline.data import ReadingOptions, model_images
from ddpm_pipeline.networks import ModelFacts, set_facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel

    from ddpm_pipeline.data import ImageData

pytestmark = pytest.mark.usefixtures("quiet_datasets")

COMMANDS = ("bound", "score", "calibrate", "evaluate")
FEATURES = """
import torch

class Means(torch.nn.Module):
    def forward(self, images):
        return images.float().mean((2, 3))[:, :1]

feature_extractor = Means
"""
COUNT = 8


class OpenedError(Exception):
    """What ends a command of these tests: its images are open."""


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("f.py").write_text(FEATURES, encoding="utf-8")


@pytest.fixture
def save(tiny_unet: Callable[..., UNet2DModel], tmp_path: Path) -> Callable[..., str]:
    """Save a model that remembers what it is told."""

    def saved(
        channels: int = 1,
        names: tuple[str, ...] | None = None,
        reading: ReadingOptions | None = None,
    ) -> str:
        classes = {} if names is None else {"num_class_embeds": len(names) + 1}
        unet = tiny_unet(channels, **classes)
        if names is not None or reading is not None:
            set_facts(unet, ModelFacts(class_names=names, reading=reading and reading.to_dict()))
        DDPMPipeline(unet, DDPMScheduler(10)).save_pretrained(tmp_path / "m")
        return "m"

    return saved


def arguments(command: str, model: str, data: str, *options: str) -> list[str]:
    more = []
    if command in {"calibrate", "evaluate"}:
        more = ["--num_inference_steps", "2"]
    if command == "evaluate":
        more += ["--features", "f.py", "--num_images", "8", "--kid_subsets", "2"]
    return [command, model, "--data", data, *more, *options]


def opened(
    monkeypatch: pytest.MonkeyPatch, command: str, model: str, data: str, *options: str
) -> ImageData:
    """Give the images that a command opens, and end it there."""
    found: list[ImageData] = []
    finish = model_images._with_model_classes

    def stop(*args: Any) -> None:
        found.append(finish(*args))
        raise OpenedError

    monkeypatch.setattr(model_images, "_with_model_classes", stop)
    monkeypatch.setenv("DDPM_TRACEBACK", "1")
    with pytest.raises(OpenedError):
        main(arguments(command, model, data, *options))
    return found[0]


# Each writes images and gives what to name, and the bytes (N, C, 8, 8) that they are to become.


def unit_array() -> tuple[str, np.ndarray]:
    values = noise(COUNT, 8, 8)
    np.save("x.npy", values.astype(np.float32) / 255)
    return "x.npy", values[:, None]


def half_array() -> tuple[str, np.ndarray]:
    values = noise(COUNT, 8, 8) // 2
    np.save("half.npy", values.astype(np.float64) * 2 / 255)
    return "half.npy", values[:, None]


def npz_split() -> tuple[str, np.ndarray]:
    values = noise(COUNT, 8, 8)
    np.savez("x.npz", x_train=values[::-1], x_test=values)
    return "x.npz", values[:, None]


def grey_folder() -> tuple[str, np.ndarray]:
    values = noise(COUNT, 8, 8)
    write_folder(Path("grey"), {f"{i}.png": encoded(v) for i, v in enumerate(values)})
    return "grey", np.repeat(values[:, None], 3, 1)


def rgba_folder() -> tuple[str, np.ndarray]:
    values = noise(COUNT, 8, 8, 4)
    write_folder(Path("rgba"), {f"{i}.png": encoded(v) for i, v in enumerate(values)})
    return "rgba", values.transpose(0, 3, 1, 2)


def small_folder() -> tuple[str, np.ndarray]:
    values = noise(COUNT, 4, 4)
    write_folder(Path("small"), {f"{i}.png": encoded(v) for i, v in enumerate(values)})
    return "small", np.pad(values, ((0, 0), (2, 2), (2, 2)))[:, None]


def folder_of_splits() -> tuple[str, np.ndarray]:
    files = {f"train/{i}.png": flat(200) for i in range(3)}
    files |= {f"test/{i}.png": flat(i) for i in range(COUNT)}
    write_folder(Path("splits"), files)
    return "splits", np.arange(COUNT, dtype=np.uint8)[:, None, None, None] + np.zeros(
        (1, 1, 8, 8), np.uint8
    )


def two_columns() -> tuple[str, np.ndarray]:
    levels = range(COUNT)
    columns = {
        "photo": [{"bytes": flat(i), "path": None} for i in levels],
        "mask": [{"bytes": flat(255), "path": None} for _ in levels],
    }
    kinds = dict.fromkeys(columns, datasets.Image())
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    table.to_parquet("two.parquet")
    return "two.parquet", folder_of_splits()[1]


def tar_shards() -> tuple[str, np.ndarray]:
    for s in range(2):
        part = range(4 * s, 4 * s + 4)
        write_tar(Path(f"part-{s}.tar"), {f"{i:03d}.png": flat(i) for i in part})
    return "part-{0..1}.tar", folder_of_splits()[1]


@dataclass(frozen=True)
class Case:
    """Images, what the model is, what it remembers and what the command is told."""

    write: Callable[[], tuple[str, np.ndarray]]
    channels: int = 1
    remembered: dict[str, Any] = field(default_factory=dict)
    given: str = ""


CASES = {
    "range remembered": Case(unit_array, remembered={"value_range": (0.0, 1.0)}),
    "range given": Case(unit_array, given="--value_range 0 1"),
    "range given and remembered": Case(
        half_array, remembered={"value_range": (0.0, 1.0)}, given="--value_range 0 2"
    ),
    "range of a folder": Case(grey_folder, 3, {"value_range": (0.0, 1.0)}),
    "split of a .npz": Case(npz_split, given="--split test"),
    "split of a folder": Case(folder_of_splits, given="--split test"),
    "grey for RGB": Case(grey_folder, 3),
    "channels given": Case(grey_folder, 3, given="--channels 3 --center_crop --strict_data"),
    "RGBA": Case(rgba_folder, 4),
    "fit remembered": Case(small_folder, remembered={"fit": "pad"}),
    "fit given": Case(small_folder, remembered={"fit": "resize"}, given="--fit pad"),
    "column remembered": Case(two_columns, remembered={"image_column": "photo"}),
    "column given": Case(two_columns, given="--image_column photo"),
    "column given and remembered": Case(
        two_columns, remembered={"image_column": "mask"}, given="--image_column photo"
    ),
    "columns of another kind": Case(
        grey_folder, 3, {"image_column": "photo", "label_column": "label"}
    ),
    "shards": Case(tar_shards),
    "cache": Case(grey_folder, 3, given="--cache_dir elsewhere"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("command", COMMANDS)
def test_images_are_read_as_told_or_remembered(
    monkeypatch: pytest.MonkeyPatch, save: Callable[..., str], command: str, case: Case
) -> None:
    data, expected = case.write()
    model = save(case.channels, reading=ReadingOptions(**case.remembered))
    images = opened(monkeypatch, command, model, data, *case.given.split())
    np.testing.assert_array_equal(images.batch(range(COUNT)).images, expected)
    assert len(images) == COUNT
    assert Path("elsewhere").is_dir() == ("elsewhere" in case.given)


def labelled_table() -> str:
    """Images in a data set of two label columns, the finer of which has the classes' names."""
    names = ["eel", "cat"]
    columns = {
        "image": [{"bytes": flat(i), "path": None} for i in range(4)],
        "coarse": [0, 0, 0, 0],
        "fine": [0, 1, 1, 0],
    }
    kinds = {
        "image": datasets.Image(),
        "coarse": datasets.ClassLabel(names=["pet"]),
        "fine": datasets.ClassLabel(names=names),
    }
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    table.to_parquet("labelled.parquet")
    return "labelled.parquet"


@pytest.mark.parametrize("told", ["--label_column fine", ""])
@pytest.mark.parametrize("command", COMMANDS[:3])
def test_classes_are_the_models(
    monkeypatch: pytest.MonkeyPatch, save: Callable[..., str], command: str, told: str
) -> None:
    reading = ReadingOptions(label_column="coarse" if told else "fine")
    model = save(names=("cat", "dog", "eel"), reading=reading)
    images = opened(monkeypatch, command, model, labelled_table(), *told.split())
    assert images.labels.tolist() == [2, 0, 0, 2]
    assert images.class_names == ("cat", "dog", "eel")


def code_of(argv: list[str]) -> int:
    try:
        return main(argv)
    except SystemExit as stop:
        return stop.code


def foxes() -> str:
    write_folder(
        Path("foxes"), {f"{c}/{i}.png": flat(i) for c in ("cat", "fox") for i in range(9)}
    )
    return "foxes"


REFUSALS = {
    "channels": ("--channels 1", "channels must be 3, the model's, got 1"),
    "crop": ("--no_center_crop", "center_crop must be on"),
    "column": ("--image_column photo", "image_column='photo' has no meaning for 'grey'"),
    "range": ("--value_range 1 0", "value_range must be (low, high), got (1.0, 0.0)"),
    "cut": ("--split test", "split='test': 'grey' has no such folder"),
}


@pytest.mark.parametrize(("told", "message"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_obeyed_is_refused(
    capsys: pytest.CaptureFixture[str],
    save: Callable[..., str],
    command: str,
    told: str,
    message: str,
) -> None:
    grey_folder()
    argv = arguments(command, save(3), "grey", *told.split())
    assert code_of(argv) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_range_that_is_remembered_and_wrong_is_named(
    capsys: pytest.CaptureFixture[str], save: Callable[..., str], command: str
) -> None:
    np.save("bytes.npy", noise(COUNT, 8, 8))
    argv = arguments(command, save(reading=ReadingOptions(value_range=(0, 1))), "bytes.npy")
    assert main(argv) == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    assert "outside --value_range=(0, 1)" in printed
    assert "that is the range of the training images: give the --value_range of these" in printed


@pytest.mark.parametrize("command", COMMANDS[:3])
def test_a_class_that_the_model_does_not_know_is_named(
    capsys: pytest.CaptureFixture[str], save: Callable[..., str], command: str
) -> None:
    argv = arguments(command, save(names=("cat", "dog")), foxes())
    assert main(argv) == 2
    message = "data='foxes' has images of class 'fox', which the model does not know; its classes"
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_evaluate_measures_grey_images_for_an_rgb_model_and_says_so(
    save: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    grey_folder()
    argv = arguments("evaluate", save(3), "grey")
    assert (
        main([*argv, "--num_nearest", "2", "--bound_images", "4", "--bound_timesteps", "1"]) == 0
    )
    report = json.loads(Path("m/evaluation.json").read_text())
    assert report["reference_changes"] == {"L to RGB": COUNT}
    assert "the reference images were changed" in capsys.readouterr().out
    assert report["bound"]["changes"] == {"L to RGB": COUNT}


def test_evaluate_knows_held_out_classes_by_name(
    save: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(names=("cat", "dog"))
    argv = arguments("evaluate", model, foxes())
    assert main([*argv, "--class_labels", "cat", "1", "--num_nearest", "0"]) == 2
    assert "data='foxes' has images of class 'fox'" in capsys.readouterr().err.splitlines()[-1]
    assert main([*argv, "--class_labels", "fox", "--num_nearest", "0"]) == 2
    assert "among cat, dog, got 'fox'" in capsys.readouterr().err.splitlines()[-1]


def test_sample_takes_names_of_classes(
    save: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(names=("cat", "7", "eel"))
    images = []
    for labels in (["eel", "cat"], ["2", "0"], ["eel", "0"], ["7"]):
        output = f"{len(images)}.png"
        argv = ["sample", model, "--num_images", "2", "--num_inference_steps", "2"]
        assert main([*argv, "--output", output, "--class_labels", *labels]) == 0
        images.append(np.array(Image.open(output)))
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])
    assert not np.array_equal(images[0], images[3])
    assert main(["sample", model, "--class_labels", "fox", "--num_inference_steps", "2"]) == 2
    assert "must be among cat, 7, eel, got 'fox'" in capsys.readouterr().err.splitlines()[-1]
    assert not Path("samples.png").exists()
