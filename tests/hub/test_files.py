"""What a push sends: the files of a model, without what must not leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddpm_pipeline.hub.files import checked_contents, model_files, read_record


def test_a_model_is_its_parts_and_what_was_measured(tmp_path: Path) -> None:
    files = ["model_index.json", "unet/config.json", "bound.json", "calibration_steps.png"]
    others = ["notes.txt", ".env", "unet/.cache/x", "checkpoints/step-1/state.json", "vae/x"]
    for name in (*files, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    parts = '{"_class_name": "DDPMPipeline", "unet": ["diffusers", "x"], "vae": [null, null]}'
    (tmp_path / "model_index.json").write_text(parts)
    assert model_files(tmp_path) == sorted(files)


@pytest.mark.parametrize("part", [".", "..", "a/b", "../token", "/etc", ".git", ""])
def test_parts_are_plain_names(tmp_path: Path, part: str) -> None:
    (tmp_path / "private.txt").write_text("SECRET")
    (tmp_path / "model_index.json").write_text(json.dumps({part: ["diffusers", "X"]}))
    with pytest.raises(ValueError, match=r"model_index\.json in .* names a part"):
        model_files(tmp_path)


@pytest.mark.parametrize("place", ["samples.png", "unet/notes.json", "README.md"])
def test_links_are_not_followed_out_of_the_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / "token").write_text("SECRET")
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DModel"]}')
    (folder / place).symlink_to(tmp_path / "token")
    with pytest.raises(ValueError, match=f"'{place}' in .* leads to .*outside the folder"):
        model_files(folder)
    with pytest.raises(ValueError, match=f"'{place}' in .* leads to .*outside the folder"):
        checked_contents(folder, [place])


def test_a_part_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "id").write_text("SECRET")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text('{"unet": ["diffusers", "x"]}')
    (tmp_path / "model" / "unet").symlink_to(tmp_path / "home")
    with pytest.raises(ValueError, match="outside the folder"):
        model_files(tmp_path / "model")


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


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"files": {"a": 1}}', "{" * 10])
def test_a_record_that_is_none_is_empty(text: str) -> None:
    assert read_record(text) == {}
