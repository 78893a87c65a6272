"""What a run needs on the disk, and which folders it leaves alone."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.paths import check_sources, check_splits, check_start


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("photos", "model", "run/checkpoints/step-0000001"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("model", "run"):
        (tmp_path / name / "model_index.json").write_text("{}")
    (tmp_path / "run/checkpoints/step-0000001/manifest.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(**options: Any) -> TrainingConfig:
    return TrainingConfig(train_data_dir="photos", **options)


def test_data_are_here_unless_they_are_of_the_hub_or_a_stream() -> None:
    check_sources(config(validation_data_dir="photos"))
    check_sources(TrainingConfig(dataset_name="alice/photos"))
    check_sources(TrainingConfig(train_data_dir="no/*.tar", streaming=True, max_train_steps=1))
    with pytest.raises(ValueError, match="give train_data_dir or dataset_name, got neither"):
        check_sources(TrainingConfig())
    with pytest.raises(FileNotFoundError, match="validation_data_dir='no' does not exist; data"):
        check_sources(config(validation_data_dir="no"))


@pytest.mark.parametrize(
    "options",
    [
        {"output_dir": "new"},
        {"output_dir": "photos"},
        {"output_dir": "run"},
        {"output_dir": "model", "overwrite_output_dir": True},
        {"output_dir": "model", "resume_from_checkpoint": "run/checkpoints/step-0000001"},
        {"output_dir": "model", "resume_from_checkpoint": "hub:alice/digits"},
        {"output_dir": "new", "model_config_name_or_path": "alice/digits"},
        {"output_dir": "new", "model_config_name_or_path": "model"},
    ],
    ids=str,
)
def test_a_run_may_begin_or_go_on(options: dict[str, Any]) -> None:
    check_start(config(**options))


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"output_dir": "model"}, FileExistsError, r"another run \(model_index.json\)"),
        (
            {"output_dir": "run", "resume_from_checkpoint": "none"},
            FileExistsError,
            r"another run \(model_index.json, step-0000001\)",
        ),
        ({"resume_from_checkpoint": "no"}, FileNotFoundError, "there is no folder 'no'"),
        ({"model_config_name_or_path": "no.json"}, FileNotFoundError, "'no.json' does not exist"),
        ({"output_dir": "model/model_index.json"}, NotADirectoryError, "is a file"),
    ],
)
def test_a_run_that_could_not_begin_is_refused(
    options: dict[str, Any], kind: type[OSError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        check_start(config(**options))


@pytest.mark.parametrize("option", ["pretrained_model_name_or_path", "preview_guidance_model"])
def test_a_model_that_is_needed_is_not_deleted(here: Path, option: str) -> None:
    guided = {"preview_guidance_scale": 2.0} if "guidance" in option else {}
    (here / "link").symlink_to(here / "run")
    for name in ("run", "link", "run/checkpoints/step-0000001", "model/../run"):
        options = {option: name, "output_dir": "run", **guided}
        check_start(config(**options))  # which goes on from the checkpoint
        with pytest.raises(ValueError, match=f"{option}='{name}' is in output_dir='run', which"):
            check_start(config(**options, overwrite_output_dir=True))
    beside = {"output_dir": "run", "overwrite_output_dir": True, **guided}
    check_start(config(**beside, **{option: "model"}))


@pytest.mark.parametrize("option", ["train_data_dir", "validation_data_dir"])
def test_a_run_does_not_write_among_its_images(tmp_path: Path, option: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "other").mkdir()
    sources = {"train_data_dir": str(tmp_path / "other"), option: str(tmp_path / "data")}
    data = tmp_path / "data"
    for output in (data, tmp_path / "link", tmp_path / "other" / ".." / "data"):
        with pytest.raises(
            ValueError, match=f"output_dir=.* is the folder of the images, {option}="
        ):
            check_sources(TrainingConfig(**sources, output_dir=str(output)))
    np.save(data / "x.npy", np.zeros(1))  # no images yet; a run's grids would be the first
    (data / "a").mkdir()
    (data / "a" / "0.png").touch()
    streams = (
        [{}]
        if option == "validation_data_dir"
        else [{}, {"streaming": True, "max_train_steps": 1}]
    )
    for output, more in product((data / "run", data / "a/b/c", tmp_path / "link/run"), streams):
        with pytest.raises(ValueError, match=f"is in the folder of the images, {option}='.*', wh"):
            check_sources(TrainingConfig(**sources, output_dir=str(output), **more))
    check_sources(TrainingConfig(**sources, output_dir=str(tmp_path / "data-run")))


def test_a_run_may_be_beside_arrays_and_rows_that_are_read_by_name(tmp_path: Path) -> None:
    for name in ("idx/train-images-idx3-ubyte", "rows/train.parquet"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
        data = str((tmp_path / name).parent)
        check_sources(TrainingConfig(train_data_dir=data, output_dir=f"{data}/run"))


def test_splits_are_looked_for_by_the_options_that_name_them() -> None:
    for name in ("photos/train/a.png", "photos/test/b.png"):
        Path(name).parent.mkdir()
        Path(name).touch()
    check_splits(config(train_split="test", validation_split="train"))
    check_splits(config(validation_data_dir="photos/test"))
    check_splits(TrainingConfig(dataset_name="alice/photos", train_split="any"))
    with pytest.raises(ValueError, match=r"^train_split='no': 'photos' has no such folder"):
        check_splits(config(train_split="no"))
    with pytest.raises(ValueError, match=r"^validation_split='no': 'photos' has no such folder"):
        check_splits(config(validation_split="no"))
    with pytest.raises(ValueError, match=r"^validation_data_dir: 'model' holds no images"):
        check_splits(config(validation_data_dir="model"))
