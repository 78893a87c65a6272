"""The folder of a run, and who may use it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.training_runs import tiny_config

from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.run import train
from ddpm_pipeline.training.storage.folder import RunFolder

pytestmark = pytest.mark.usefixtures("random_last_layers")


def test_another_run_is_not_overwritten_unless_told(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, max_train_steps=2, resume_from_checkpoint="none")
    train(config)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds another run .*overwrite_output_dir"):
        train(config)
    train(config.replace(overwrite_output_dir=True, seed=5))
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert TrainingConfig.from_json(tmp_path / "run" / "training_config.json").seed == 5


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    folder = RunFolder(config.output_dir)
    folder.lock()
    with pytest.raises(FileExistsError, match="another process is training"):
        train(config)
    folder.unlock()
