"""Calls that must not work: each gives one line, code 1 or 2, no traceback, and writes nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

import pytest
from helpers.wrong_calls import make_place

from ddpm_pipeline.calibration import CalibrateConfig
from ddpm_pipeline.cli.commands import main
from ddpm_pipeline.cli.sample import SampleArguments
from ddpm_pipeline.evaluation import EvaluateConfig
from ddpm_pipeline.likelihood import BoundConfig, ScoreConfig
from ddpm_pipeline.training import TrainingConfig

if TYPE_CHECKING:
    pass

# What a call needs beside its mistake.
NEEDS = {
    "train": "--train_data_dir photos --resolution 8 --max_train_steps 1 --train_batch_size 4 "
    "--model_config_name_or_path model --ddpm_num_inference_steps 1 --output_dir run",
    "sample": "sample model --output new.png --num_inference_steps 2 --num_images 2",
    "bound": "--data photos --num_timestep_samples 1 --output_dir new",
    "score": "--data photos --num_timestep_samples 1 --output_dir new",
    "calibrate": "--data photos --num_forwards 20 --num_inference_steps 4 --output_dir new "
    "--no_save",
    "evaluate": "--data photos --features means.py --num_images 6 --num_inference_steps 2 "
    "--kid_subsets 2 --num_nearest 2 --output_dir new",
}
CONFIGS = {
    "train": TrainingConfig,
    "sample": SampleArguments,
    "bound": BoundConfig,
    "score": ScoreConfig,
    "calibrate": CalibrateConfig,
    "evaluate": EvaluateConfig,
}
MEASURING = ("bound", "score", "calibrate", "evaluate")
DAMAGED = [
    "index_no_json",
    "index_list",
    "index_empty",
    "index_other",
    "index_binary",
    "no_unet",
    "no_scheduler",
    "no_weights",
    "no_config",
    "config_no_json",
    "config_list",
    "config_other",
    "config_unknown",
    "scheduler_no_json",
    "scheduler_T",
    "scheduler_beta",
    "scheduler_type",
    "scheduler_spacing",
    "weights_cut",
    "weights_empty",
    "weights_text",
    "weights_header",
    "weights_some",
]
NO_MODEL = ("nowhere", "./nowhere", "empty", "photos", "file.txt", "words", "~/nowhere", "''")
NO_DATA = [
    "nowhere/",
    "./nowhere",
    "empty",
    "words",
    "file.txt",
    "words.csv",
    "broken",
    "file.png",
    "file.npz",
    "nan.npy",
    "inf.npy",
    "none.npy",
    "flat.npy",
    "deep.npy",
    "channels.npy",
    "words.npy",
    "objects.npy",
    "complex.npy",
    "cut.npy",
    "text.npy",
    "void.npy",
    "cut.npz",
    "cut.parquet",
    "floats.npy",
]
NO_FEATURES = [
    "no.py",
    "syntax.py",
    "nothing.py",
    "raises.py",
    "number.py",
    "shape.py",
    "nan.py",
    "words",
    "features_cut",
    "features_none",
    "features_28",
    "./nowhere",
]


def _by_command() -> Iterator[str]:
    """What is wrong in every command, and whatever its options are."""
    for name, config in CONFIGS.items():
        for field in fields(config):
            hint = str(get_type_hints(config)[field.name])
            if "int" in hint or "float" in hint:
                yield f"{name} --{field.name} many"
        yield f"{name} --modell model"
        yield f"{name} --seed"
        yield f"{name} --seed 1.5"
        yield f"{name} --seed -1"
    for name in ("sample", *MEASURING):
        needs = NEEDS[name].removeprefix("sample model ")
        yield from (f"{name} {model} {needs}" for model in (*NO_MODEL, *DAMAGED))
        yield f"{name} --batch_size 0 {needs}"
        yield f"{name} model model {needs}"
    for name in MEASURING:
        first = f"{name} model {NEEDS[name]}"
        yield from (f"{first} --data {data}" for data in NO_DATA)
        yield from (f"{first} --output_dir {place}" for place in ("file.txt", "file.txt/a"))
        yield f"{first} --split nosuch"
        yield f"{first} --fit squeeze"
        yield f"{name} model"
        yield f"{name} weights_nan {NEEDS[name]}"
        yield f"{name} classes {NEEDS[name]}"
        yield f"{name} classes {NEEDS[name]} --data few_labels.npz"
        yield f"{name} classes {NEEDS[name]} --data five.npz"
    for name in ("calibrate", "evaluate"):
        first = f"{name} model {NEEDS[name]}"
        yield from (f"{first} --features {features}" for features in NO_FEATURES)
        yield f"{first} --num_images 0"


def _by_hand() -> Iterator[str]:
    """What is wrong with options of one command."""
    for words in (
        "--train_data_dir nowhere", "--train_data_dir empty", "--train_data_dir words",
        "--train_data_dir broken", "--train_data_dir nan.npy", "--train_data_dir cut.npz",
        "--train_data_dir flat.npy", "--train_data_dir cut.parquet", "--train_data_dir floats.npy",
        "--train_data_dir none.npy", "--dataset_name photos",
        "--resolution 7", "--resolution 0", "--train_batch_size 64", "--train_batch_size 0",
        "--max_train_steps 0", "--learning_rate 0", "--learning_rate -1", "--learning_rate nan",
        "--dropout 1", "--validation_size 12", "--validation_size 1.5", "--validation_size -1",
        "--validation_data_dir nowhere", "--validation_split nosuch", "--train_split nosuch",
        "--class_conditional", "--num_classes 3",
        "--class_conditional --train_data_dir animals --num_classes 5",
        "--class_conditional --train_data_dir few_labels.npz",
        "--class_conditional --train_data_dir odd_labels.npz",
        "--model_config_name_or_path broken.json", "--model_config_name_or_path list.json",
        "--model_config_name_or_path nowhere.json", "--channels 2", "--channels 3",
        "--prediction_type eps", "--variance_type learned", "--loss vlb --loss_weighting min_snr",
        "--rescale_betas_zero_snr True --prediction_type epsilon", "--ema_decay 2",
        "--ddpm_num_inference_steps 2000", "--ddpm_num_steps 0", "--mixed_precision fp8",
        "--output_dir file.txt", "--output_dir model", "--output_dir file.txt/run",
        "--resume_from_checkpoint nowhere", "--resume_from_checkpoint photos",
        "--resume_from_checkpoint hub", "--push_to_hub", "--hub_model_id a/b/c",
        "--hub_license 'Apache 2.0'", "--logging_dir ../logs", "--config broken.json",
        "--config unknown.json", "--config list.json", "--config wrong.json", "--config words",
        "--preset nosuch", "--fsdp --compile", "--num_epochs 0", "--streaming --num_epochs 2",
        "--lr_scheduler sine", "--optimizer sgd", "--validate_bound_steps 5",
    ):  # fmt: skip
        yield f"train {NEEDS['train']} {words}"
    yield "train"
    for words in (
        "--num_images 0", "--num_images -3", "--num_inference_steps 0",
        "--num_inference_steps 21", "--eta 2", "--eta -0.1", "--eta nan", "--class_labels 1",
        "--guidance_scale 2", "--scheduler euler", "--precision int8", "--output taken.png",
        "--output folder.png", "--output full", "--output file.txt", "--output file.npz",
        "--output folder.npz", "--output new.npz --format png", "--output new --format npz",
        "--format gif", "--shard_size 0", "--output file.txt/new.png", "--model classes",
    ):  # fmt: skip
        yield f"{NEEDS['sample']} {words}"
    for words in ("", "--class_labels 9", "--class_labels -1", "--class_labels 1.5",
                  "--class_labels", "--class_labels 1 --guidance_scale nan"):  # fmt: skip
        yield f"{NEEDS['sample'].replace('model', 'classes', 1)} {words}"
    for words in (
        "--num_images 13", "--num_images 0", "--num_timestep_samples -1", "--decoder none",
        "--timestep_sampler even", "--num_inference_steps 21", "--num_inference_steps 0",
        "--variance_type nosuch", "--variance_type analytic", "--variance_type learned",
        "--clip_x_0 -1", "--clip_x_0 nan",
    ):  # fmt: skip
        yield from (f"{name} model {NEEDS[name]} {words}" for name in ("bound", "score"))
    yield f"bound model {NEEDS['bound']} --target_standard_error -1"
    yield f"score model {NEEDS['score']} --num_shown -1"
    for words in (
        "--num_forwards 3", "--num_inference_steps 0", "--num_inference_steps 21",
        "--samplers ddpm", "--samplers", "--samplers ddim", "--spacings even",
        "--timestep_spacing even", "--variance_type nosuch", "--estimate best",
        "--target_standard_error 0", "--target_standard_error 1e-9", "--num_images 0",
        "--precision 1 --target_standard_error 1",
    ):  # fmt: skip
        yield f"calibrate model {NEEDS['calibrate']} {words}"
    yield f"calibrate learned {NEEDS['calibrate']} --features means.py"
    yield "calibrate nobody/nothing --data photos"
    for words in (
        "--num_reference 13", "--num_reference 0", "--num_images 2", "--num_images 0",
        "--kid_subsets 1", "--kid_subsets 4", "--neighbors 0", "--neighbors 6",
        "--num_nearest 7", "--num_nearest -1", "--num_kept 0", "--bound_images 13",
        "--bound_timesteps 0", "--bound_data nowhere/", "--bound_data large", "--data large",
        "--bound_split nosuch", "--samples nowhere", "--samples empty",
        "--samples rgb", "--samples large", "--samples cut.npz", "--samples one", "--eta 7",
        "--class_labels 1", "--guidance_scale 3", "--num_inference_steps 21",
        "--output new --output_dir new2", "--scheduler euler",
    ):  # fmt: skip
        yield f"evaluate model {NEEDS['evaluate']} {words}"
    yield f"evaluate classes {NEEDS['evaluate']} --class_labels 9"
    for words in (
        "", "model", "nowhere alice/digits", "empty alice/digits", "file.txt alice/digits",
        "model digits/a/b", "model 'alice digits'", "model alice/digits --license 'MIT License'",
        "model alice/digits --revisionn x", "model alice/digits bob/digits",
        "model alice/digits", "index_no_json alice/digits", "weights_cut alice/digits",
    ):  # fmt: skip
        yield f"push {words}"
    yield from ("", "trian", "--version2", "train --dry_run --resolution 0")


CALLS = list(dict.fromkeys([*_by_command(), *_by_hand()]))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def filled(place: Path) -> dict[str, tuple[int, ...]]:
    """The listing of the working folder."""
    from helpers.unets import make_tiny_unet

    make_place(place, make_tiny_unet)
    return listing(place)


def listing(folder: Path) -> dict[str, tuple[int, ...]]:
    """All that is in a folder, with what a write changes: the time, the size, the file itself."""
    found = {}
    for root, folders, files in os.walk(folder):
        place = os.path.relpath(root, folder)
        found |= {f"{place}/{name}": () for name in folders}
        for name in files:
            state = os.lstat(f"{root}/{name}")
            found[f"{place}/{name}"] = (state.st_mtime_ns, state.st_size, state.st_ino)
    return found


def check_untouched(place: Path, filled: dict[str, tuple[int, ...]]) -> None:
    """Nothing was written; what was is taken away, so that it fails one call and not all."""
    after = listing(place)
    for name in sorted(after.keys() - filled.keys()):
        path = place / name
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    names = after.keys() | filled.keys()
    assert [name for name in sorted(names) if after.get(name) != filled.get(name)] == []


def check_said(argv: list[str], code: int, said: str) -> None:
    """One line, beside the progress that was shown before."""
    assert code in {1, 2}, said
    assert "Traceback" not in said
    lines = [line.rpartition("\r")[2] for line in said.splitlines()]
    lines = [line for line in lines if line.strip() and "%|" not in line and "it/s]" not in line]
    assert len(lines) == 1, said
    assert lines[0].startswith("ddpm"), said
    assert ": error: " in lines[0], said


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_call_is_one_line_and_writes_nothing(
    place: Path,
    filled: dict[str, tuple[int, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    call: str,
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))
    argv = shlex.split(call)
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    if argv:
        check_said(argv, code, capsys.readouterr().err)
    after = listing(place)
    assert after == filled, {
        k for k in after.keys() | filled.keys() if after.get(k) != filled.get(k)
    }


def test_there_are_two_hundred_and_more() -> None:
    assert len(CALLS) >= 200
    assert {call.split()[0] for call in CALLS if call} >= {*CONFIGS, "push"}


@pytest.mark.parametrize(
    "call",
    [
        pytest.param("sample weights_cut --output new.png", marks=pytest.mark.slow),
        f"train {NEEDS['train']} --train_batch_size 64",
    ],
)
def test_the_same_in_a_process(
    place: Path, filled: dict[str, tuple[int, ...]], tmp_path: Path, call: str
) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "ddpm_pipeline.cli", *shlex.split(call)],
        cwd=place,
        env=os.environ | {"DDPM_PIPELINE_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    check_said(shlex.split(call), run.returncode, run.stderr)
    check_untouched(place, filled)
