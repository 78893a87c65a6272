"""What a push sends: the files of a model, without what must not leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpm_pipeline.hub.files import checked_contents, model_files


def test_a_model_is_its_parts_and_what_was_measured(tmp_path: Path) -> None:
    files = ["model_index.json", "unet/config.json", "bound.json", "calibration_steps.png"]
    others = ["notes.txt", ".env", "unet/.cache/x", "checkpoints/step-1/state.json", "vae/x"]
    for name in (*files, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    parts = '{"_class_name": "DDPMPipeline", "unet": ["diffusers", "x"], "vae": [null, null]}'
    (tmp_path / "model_index.json").write_text(parts)
    assert model_files(tmp_path) == sorted(files)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no saved model in '.*': no model_index"):
        model_files(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*/no'"):
        model_files(tmp_path / "no")


def test_contents_are_files_and_no_pickles(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert checked_contents(tmp_path, ["a.json"]) == {"a.json": tmp_path / "a.json"}
    with pytest.raises(ValueError, match="files must name at least one file"):
        checked_contents(tmp_path, [])
    with pytest.raises(ValueError, match=r"'b\.CKPT' is a pickle"):
        checked_contents(tmp_path, ["b.CKPT"])
    with pytest.raises(FileNotFoundError, match=r"there is no file 'b\.json' in"):
        checked_contents(tmp_path, ["a.json", "b.json"])
