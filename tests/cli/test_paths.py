"""Paths are paths: every command takes folders of any name, and ~ is the user's home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers.unets import make_tiny_unet
from helpers.wrong_calls import WORKING_FEATURES
from PIL import Image

from ddpm_pipeline import DDPMPipeline, DDPMScheduler, TrainingConfig
from ddpm_pipeline.calibration import CalibrateConfig
from ddpm_pipeline.cli.commands import main
from ddpm_pipeline.cli.push import PushArguments
from ddpm_pipeline.cli.sample import SampleArguments
from ddpm_pipeline.evaluation import EvaluateConfig
from ddpm_pipeline.likelihood import BoundConfig, ScoreConfig

NAMES = [
    "plain",
    "with space",
    "[brackets]",
    "{a,b}",
    "st*r?",
    "-dash",
    "a::b",
    "50%",
    "ünïcode 🎲",
    os.fsdecode(b"caf\xe9"),
]
TINY = (
    "--train_data_dir={}/photos --validation_data_dir={}/photos --resolution=8 "
    "--train_batch_size=4 --ddpm_num_inference_steps=1 --ddpm_num_steps=20 "
    "--lr_scheduler=constant --model_config_name_or_path={}/model --cache_dir={}/cache"
)
# The options of every command that name paths; NAME is the folder, {} its content.
CALLS = {
    "train": f"train {TINY} --max_train_steps=1 --output_dir={{}}/run",
    "resume": f"train {TINY} --max_train_steps=2 --output_dir={{}}/resumed "
    "--config={}/run/training_config.json "
    "--resume_from_checkpoint={}/run/checkpoints/step-0000001",
    "grid": "sample --model={}/model --num_images=4 --num_inference_steps=2 --output={}/new/a.png",
    "files": "sample --model={}/model --num_images=4 --num_inference_steps=2 --output={}/drawn",
    "npz": "sample --model={}/model --num_images=4 --num_inference_steps=2 --output={}/a.npz",
    "tar": "sample --model={}/model --num_images=4 --num_inference_steps=2 --output={}/shards "
    "--format=webdataset",
    "bound": "bound --model={}/model --data={}/photos --num_timestep_samples=1 --output_dir={}/b",
    "score": "score --model={}/model --data={}/photos --num_timestep_samples=1 --output_dir={}/s",
    "calibrate": "calibrate --model={}/model --data={}/images.npy --num_forwards=20 "
    "--num_inference_steps=4 --output_dir={}/c --no_save --features={}/means.py --num_images=4",
    **{
        f"evaluate {samples}": "evaluate --model={}/model --data={}/photos --features={}/means.py "
        f"--kid_subsets=2 --num_nearest=2 --samples={{}}/{samples} --bound_data={{}}/images.npy "
        "--output_dir={}/e --statistics_dir={}/statistics --neighbors=1 --num_inference_steps=2"
        for samples in ("drawn", "a.npz", "shards")
    },
}
# Calls that go together: later ones read what earlier ones wrote.
PARTS = {
    "train": ("train", "resume"),
    "sample": ("grid", "files", "npz", "tar"),
    "measure": ("bound", "score", "calibrate"),
    "evaluate": ("files", "evaluate drawn"),
}
# A name with all that is odd in those above: it starts with a hyphen, and so on.
ODD = "-[" + os.fsdecode(b"caf\xe9") + "] {a,b} st*r? a::b 50% ünï 🎲"
WRITTEN = (
    "run/model_index.json",
    "resumed/model_index.json",
    "new/a.png",
    "drawn/000003.png",
    "a.npz",
    "shards/000000-000003.tar",
    "b/bound.json",
    "s/scores.csv",
    "s/scores.png",
    "c/calibration.json",
    "e/evaluation.json",
    "e/nearest.png",
    "statistics",
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    DDPMPipeline(make_tiny_unet(), DDPMScheduler(20)).save_pretrained(folder / "model")
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    (folder / "photos").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / "photos" / f"{i} [x].png")
    (folder / "means.py").write_text(WORKING_FEATURES)
    return folder


def run_all(name: str, parts: Iterable[str] = tuple(CALLS)) -> None:
    for part in parts:
        words = [word.replace("{}", name) for word in CALLS[part].split()]
        assert main(words) == 0, words


def check_written(folder: Path, names: Iterable[str] = WRITTEN) -> None:
    assert [name for name in names if not (folder / name).exists()] == []
    rows = (folder / "s" / "scores.csv").read_text(errors="surrogateescape").splitlines()
    assert len(rows) == 9
    assert "0 [x].png" in rows[1]


@contextmanager
def ascii_failures() -> Iterator[None]:
    """Fail in ASCII: pytest-xdist cannot send what is no UTF-8, and its worker would end."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (whatever it is, its words have to be sent)
        pytest.fail(ascii(f"{type(error).__name__}: {error}"), pytrace=False)


@pytest.mark.parametrize("part", PARTS)
def test_commands_take_a_name_with_all_that_is_odd(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "images"))
    with ascii_failures():
        shutil.copytree(inputs, tmp_path / ODD)
        run_all(ODD, PARTS[part])
        written = [name for name in WRITTEN if (tmp_path / ODD / name).exists()]
        assert len(written) >= 2
        assert {path.name for path in tmp_path.iterdir()} <= {ODD, "images"}


@pytest.mark.slow  # a minute
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_every_command_takes_every_name(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "images"))
    with ascii_failures():
        shutil.copytree(inputs, tmp_path / name)
        run_all(name)
        check_written(tmp_path / name)
        assert {path.name for path in tmp_path.iterdir()} == {name, "images"}


def test_a_failure_with_any_name_can_be_sent_to_another_process() -> None:
    with pytest.raises(pytest.fail.Exception) as failure, ascii_failures():
        raise FileNotFoundError(NAMES[-1])
    assert str(failure.value).encode() == b"'FileNotFoundError: caf\\udce9'"


def test_home_is_home_in_every_option(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", "~/images")
    shutil.copytree(inputs, tmp_path / "home")
    archives = {"npz", "tar", "evaluate a.npz", "evaluate shards"}  # by the options of the others
    run_all("~", [part for part in CALLS if part not in archives])
    written = [name for name in WRITTEN if not name.startswith(("a.npz", "shards"))]
    check_written(tmp_path / "home", written)
    assert list((tmp_path / "work").iterdir()) == []
    assert (tmp_path / "home" / "images").is_dir()


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (
            TrainingConfig,
            "train_data_dir validation_data_dir cache_dir output_dir resume_from_checkpoint",
        ),
        (SampleArguments, "model output"),
        (BoundConfig, "model data output_dir"),
        (ScoreConfig, "model data output_dir"),
        (CalibrateConfig, "model data features output_dir"),
        (
            EvaluateConfig,
            "model data samples features bound_data output_dir statistics_dir",
        ),
        (PushArguments, "model"),
    ],
)
def test_home_is_home_in_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: type, names: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    needed = {"model": "~", "data": "d", "repo_id": "a/b"}
    known = config.__dataclass_fields__
    for name in names.split():
        values = {key: value for key, value in needed.items() if key in known}
        made = config(**values | {name: "~/x" if name != "model" else "~"})
        assert getattr(made, name) == str(tmp_path) + ("/x" if name != "model" else "")


@pytest.mark.parametrize(
    "call",
    [
        "train --train_data_dir={photos} --output_dir=~no-user/x",
        "train --train_data_dir=~no-user/x --output_dir=run",
        "train --config=~no-user/x --train_data_dir={photos} --output_dir=run",
        "train --model_config_name_or_path=~no-user/x --train_data_dir={photos} --output_dir=run",
        "sample {model} --output=~no-user/x",
        "sample ~no-user/x",
        "bound {model} --data={photos} --output_dir=~no-user/x",
        "score {model} --data=~no-user/x",
        "calibrate {model} --data={photos} --output_dir=~no-user/x",
        "evaluate {model} --data={photos} --statistics_dir=~no-user/x",
        "push ~no-user/x a/b",
        "export ~no-user/x --output=e",
        "export {model} --output=~no-user/x",
        "average ~no-user/x --output_dir=e",
        "edit ~no-user/x --task=vary --image={photos}/0.png --output=e",
        "edit {model} --task=vary --image=~no-user/x --output=e",
        "app ~no-user/x",
    ],
)
def test_a_user_that_there_is_not_is_refused_in_one_line(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    call: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = call.format(model=inputs / "model", photos=inputs / "photos").split()
    try:
        code = main(words)
    except SystemExit as stop:
        code = stop.code
    lines = capsys.readouterr().err.splitlines()
    assert (code, len(lines)) == (2, 1)
    assert "='~no-user/x': there is no user 'no-user' on this machine; " in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_no_utf_8_is_printed_as_it_is(inputs: Path, tmp_path: Path) -> None:
    name = b"caf\xe9"
    command = [sys.executable, "-m", "ddpm_pipeline.cli", "sample", str(inputs / "model")]
    run = subprocess.run(
        [*command, "--num_images", "1", "--num_inference_steps", "1", "--output", name + b".png"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "utf-8", "DDPM_PIPELINE_CACHE": str(tmp_path / "c")},
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert (run.returncode, run.stdout.strip()) == (0, name + b".png")
