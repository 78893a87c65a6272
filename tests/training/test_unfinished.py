"""Runs without a saved model are told apart, and say when there will be one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.unfinished import (
    check_has_checkpoint,
    has_checkpoints_only,
    is_checkpoint,
)


def write(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
    return root


CHECKPOINT = ("manifest.json", "state.json")
RUN = [f"checkpoints/step-0000004/{name}" for name in CHECKPOINT]


@pytest.mark.parametrize(
    ("files", "only"),
    [
        (CHECKPOINT, True),
        (RUN, True),
        ([*RUN, "training_config.json"], True),
        ([*RUN, "model_index.json"], False),
        (["model_index.json"], False),
        (["manifest.json"], False),
        (["photos/0.png"], False),
        (["checkpoints/notes.txt"], False),
        ([], False),
    ],
)
def test_which_folders_hold_checkpoints_only(files: list[str], only: bool, tmp_path: Path) -> None:
    assert has_checkpoints_only(write(tmp_path, *files)) is only
    assert has_checkpoints_only(tmp_path / "missing") is False
    assert is_checkpoint(tmp_path) is (tuple(files) == CHECKPOINT)


@pytest.mark.parametrize(
    ("options", "log", "said"),
    [
        (
            {"max_train_steps": 100, "save_model_steps": 40, "checkpointing_steps": 25},
            '{"step": 3}\n{"step": 7}\n',
            "saved first after update 40, and a checkpoint, .*, after update 25; update 7 is",
        ),
        (
            {"max_train_steps": 30, "save_model_steps": 40, "checkpointing_steps": 50},
            "",
            "saved first after update 30; no update was logged so far",
        ),
        (
            {"max_train_steps": 30, "save_model_steps": 0, "checkpointing_steps": 0},
            None,
            "saved first after update 30; no update was logged so far",
        ),
        (
            {"max_train_steps": 30, "save_model_steps": 10, "checkpointing_steps": 10},
            "not json\n",
            "saved first after update 10; no update was logged so far",
        ),
    ],
)
def test_a_run_says_when_it_saves_first(
    options: dict[str, Any], log: str | None, said: str, tmp_path: Path
) -> None:
    config = TrainingConfig(train_data_dir="photos", save_images_steps=0, **options)
    (tmp_path / "training_config.json").write_text(json.dumps(config.to_dict()))
    if log is not None:
        (tmp_path / "metrics.jsonl").write_text(log)
    with pytest.raises(FileNotFoundError, match=f"no model in .* yet: its model is {said}"):
        has_checkpoints_only(tmp_path)


def test_a_run_of_another_version_says_less(tmp_path: Path) -> None:
    (tmp_path / "training_config.json").write_text('{"from_the_future": 1}')
    with pytest.raises(FileNotFoundError, match=r"there is no model in .* yet$"):
        has_checkpoints_only(tmp_path)


def test_it_costs_no_torch() -> None:
    code = "import sys, ddpm_pipeline.training.unfinished; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step in (5, 40, 200):
        (tmp_path / f"run/checkpoints/step-{step:07d}").mkdir(parents=True)
    return tmp_path / "run"


def test_a_run_has_its_checkpoints(run: Path) -> None:
    for step in (None, 5, 200):
        check_has_checkpoint(run, step)
    with pytest.raises(
        FileNotFoundError, match=r"checkpoint=6 is not in '.*run', which has 5, 40"
    ):
        check_has_checkpoint(run, 6)


def test_a_folder_of_something_else_has_none(run: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no checkpoint in"):
        check_has_checkpoint(run.parent, None)


def test_a_checkpoint_is_its_own(run: Path) -> None:
    folder = run / "checkpoints/step-0000005"
    for name in ("manifest.json", "state.json"):
        (folder / name).write_text("{}")
    check_has_checkpoint(folder, None)
    assert has_checkpoints_only(folder)
    assert has_checkpoints_only(run)


def test_a_run_with_a_model_is_a_model(run: Path) -> None:
    (run / "model_index.json").write_text("{}")
    assert not has_checkpoints_only(run)
    assert not has_checkpoints_only(run / "nowhere")
