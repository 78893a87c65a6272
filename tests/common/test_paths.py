"""What is refused before anything is imported: models, data and outputs that cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from ddpm_pipeline.common.paths import (
    check_data,
    check_exists,
    check_has_folder,
    check_model,
    check_output_file,
    check_output_folder,
    check_saved_model,
    is_repo_id,
)

names = st.text("aZ9é_-./ ", max_size=8) | st.sampled_from(["a/b.git", "a" * 97 + "/b", "a/b\n"])


def is_valid(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


@given(name=names)
def test_a_repository_has_the_form_that_huggingface_hub_allows(name: str) -> None:
    # Before its version 2 it leaves letters beyond ASCII and long owners to the server to refuse.
    knows_all = not is_valid("é/b")
    is_allowed = is_valid(name) and name.count("/") == 1
    assert is_repo_id(name) == is_allowed or (not knows_all and is_allowed)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model, an empty folder and a file."""
    for name in ("model", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "model/model_index.json").write_text("{}")
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_model_is_a_folder_or_may_be_on_the_hub(here: Path) -> None:
    check_model("model")
    check_model(str(here / "model"))
    check_model("alice/digits")


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        (
            "nowhere",
            FileNotFoundError,
            "no folder 'nowhere', and models on the Hub are called OWNER",
        ),
        ("./no/model", FileNotFoundError, "there is no folder './no/model'"),
        ("no/such/model", FileNotFoundError, "there is no folder 'no/such/model'"),
        ("/alice/digits", FileNotFoundError, "there is no folder '/alice/digits'"),
        ("empty", FileNotFoundError, "there is no saved model in 'empty': no model_index.json"),
        ("file", NotADirectoryError, "'file' is a file, not the folder of a saved model"),
    ],
)
def test_other_models_are_refused(
    here: Path, model: str, kind: type[OSError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        check_model(model)


def test_a_saved_model_is_a_folder_in_any_case(here: Path) -> None:
    check_saved_model("model")
    with pytest.raises(FileNotFoundError, match="there is no folder 'alice/digits'"):
        check_saved_model("alice/digits")


def test_a_model_of_the_hub_has_no_folder_for_results(here: Path) -> None:
    check_has_folder("model", "output must be given")
    with pytest.raises(ValueError, match="output must be given for model='alice/digits'"):
        check_has_folder("alice/digits", "output must be given")
    with pytest.raises(FileNotFoundError, match="there is no folder 'nowhere'"):
        check_has_folder("nowhere", "output must be given")


def test_data_are_here_or_may_be_on_the_hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    assert check_data("data", "empty")
    assert check_data("data", "~/file")
    assert not check_data("data", "mnist")
    assert not check_data("data", "alice/photos")
    for missing in ("./no", "/no/photos", "a/b/c", "train.npz", "alice/photos.parquet"):
        with pytest.raises(FileNotFoundError, match=f"bound_data={missing!r} does not exist"):
            check_data("bound_data", missing)


def test_a_path_exists_or_not(here: Path) -> None:
    check_exists("samples", "file")
    with pytest.raises(FileNotFoundError, match="samples='no' does not exist; draw them"):
        check_exists("samples", "no", "; draw them")


def test_an_output_can_be_made_where_no_file_is(here: Path) -> None:
    for folder in ("empty", "new", "new/deeper", str(here / "new"), "."):
        check_output_folder("output_dir", folder)
        check_output_file("output", f"{folder}/picture.png")
    check_output_file("output", "file")
    for folder in ("file", "file/below", "file/below/that"):
        with pytest.raises(NotADirectoryError, match=r"cannot be written: '(.*/)?file' is a file"):
            check_output_folder("output_dir", folder)
    with pytest.raises(NotADirectoryError, match=r"output='file/picture\.png' cannot be written"):
        check_output_file("output", "file/picture.png")
    with pytest.raises(IsADirectoryError, match="output='empty' must be a file"):
        check_output_file("output", "empty")


def test_an_output_must_be_writable(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "empty")
    check_output_folder("output", "new")
    with pytest.raises(
        PermissionError, match=r"output='empty/new' cannot be .*empty' is read-only"
    ):
        check_output_folder("output", "empty/new")


def test_the_checks_import_nothing_heavy() -> None:
    code = "import sys, ddpm_pipeline.common.paths; print({*sys.modules} & {'torch', 'numpy'})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
