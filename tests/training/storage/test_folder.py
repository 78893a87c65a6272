"""The folder of a run, and who may use it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.manifests import sealed
from helpers.training_runs import tiny_config

from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.run import train
from ddpm_pipeline.training.storage.export import open_checkpoint
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


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_a_run_whose_logs_lie_deeper_than_is_allowed_now_goes_on(
    tmp_path: Path, has_checkpoint: bool
) -> None:
    config = tiny_config(tmp_path, max_train_steps=2, checkpointing_steps=2)
    train(config)
    run = tmp_path / "run"
    if has_checkpoint:
        (path,) = (run / "checkpoints").iterdir()
        state = json.loads((path / "state.json").read_text())
        state["identity"]["config"]["logging_dir"] = "logs/first"
        (path / "state.json").write_text(json.dumps(state))
        sealed(path)
    else:  # it was killed before its first checkpoint
        for name in ("checkpoints", "unet", "scheduler"):
            shutil.rmtree(run / name)
        (run / "model_index.json").unlink()
    identity = json.loads((run / "training_config.json").read_text())
    (run / "training_config.json").write_text(json.dumps({**identity, "logging_dir": "a/b"}))
    with pytest.raises(ValueError, match="logging_dir must be the name of a folder of its own"):
        train(config.replace(logging_dir="a/b"))
    assert train(config.replace(save_model_steps=0)).global_step == 2
    if has_checkpoint:
        assert open_checkpoint(run).step == 2


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    folder = RunFolder(config.output_dir)
    folder.lock()
    with pytest.raises(FileExistsError, match="another process is training"):
        train(config)
    folder.unlock()
