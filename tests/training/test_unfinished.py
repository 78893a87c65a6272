"""Which checkpoints a folder has, told before torch is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpm_pipeline.training.unfinished import check_has_checkpoint, has_checkpoints_only


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
