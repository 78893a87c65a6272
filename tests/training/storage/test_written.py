"""What is deleted is what a run wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from compatibility import saved_recipes
from helpers.training_runs import tiny_config

from ddpm_pipeline.training.run import train
from ddpm_pipeline.training.storage.folder import RunFolder
from ddpm_pipeline.training.storage.written import WrittenFiles

MINE = (
    "thesis.txt",
    "unet/notes.txt",
    "unet/diffusion_pytorch_model.mine.safetensors",
    "scheduler/old.json",
    "samples/mine.png",
    "samples/step-by-step.png",
    "checkpoints/mine/weights.bin",
    "checkpoints/step-0000002/notes.txt",
    "logs/mine.txt",
    "shorter-run/mine.png",
    "datasets/a.png",
    "evaluation.json",
)


def put(folder: Path, names: tuple[str, ...]) -> None:
    """Make files of the user's own."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")


def files_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}


@pytest.mark.usefixtures("random_last_layers")
def test_all_that_a_run_wrote_goes_and_all_else_stays(tmp_path: Path) -> None:
    run = tmp_path / "run"
    steps = {"max_train_steps": 2, "save_images_steps": 1, "checkpointing_steps": 2}
    train(tiny_config(tmp_path, **steps, logger="tensorboard"))
    assert list(run.glob("logs/**/events.*"))
    put(run, MINE)
    WrittenFiles(run).delete()
    assert files_in(run) == set(MINE)


@pytest.mark.usefixtures("random_last_layers")
def test_a_save_leaves_what_lies_beside_the_model(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, max_train_steps=2)
    put(tmp_path / "run", ("unet/notes.txt",))
    train(config)
    assert {"unet/notes.txt", "unet/config.json"} <= files_in(tmp_path / "run")


@pytest.mark.parametrize("name", ["run_adamw", "run_muon"])
def test_of_a_run_without_a_list_the_known_names_go(tmp_path: Path, name: str) -> None:
    run = Path(shutil.copytree(saved_recipes.SAVED / name, tmp_path / "run"))
    shutil.copytree(saved_recipes.SAVED / "plain", run, dirs_exist_ok=True)
    put(run, (*MINE, "logs/ddpm/events.out.tfevents.1.host", "checkpoints/step-0000007/notes"))
    written = WrittenFiles(run)
    written.begin("logs")
    written.delete()
    assert files_in(run) == {*MINE, "checkpoints/step-0000007/notes"}


def test_of_a_folder_that_no_run_was_in_nothing_goes(tmp_path: Path) -> None:
    put(tmp_path, (*MINE, "model_index.json", "metrics.jsonl", "samples/step-0000001.png"))
    before = files_in(tmp_path)
    written = WrittenFiles(tmp_path)
    written.begin("logs")
    written.delete()
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    "entry", ["../outside/a", "outside/a", "linked/a", "/{}/outside/a", "a\0b", "", ".", 5, None]
)
def test_an_entry_reaches_nothing_outside_the_folder(tmp_path: Path, entry: object) -> None:
    put(tmp_path, ("outside/a", "run/kept"))
    (tmp_path / "run" / "linked").symlink_to(tmp_path / "outside")
    named = entry.format(str(tmp_path).strip("/")) if isinstance(entry, str) else entry
    (tmp_path / "run" / ".written.jsonl").write_text(f'{json.dumps(named)}\n"cut')
    WrittenFiles(tmp_path / "run").delete()
    assert {"outside/a", "run/kept", "run/linked"} <= {
        *files_in(tmp_path),
        *(p.relative_to(tmp_path).as_posix() for p in (tmp_path / "run").iterdir()),
    }


def test_a_link_in_the_place_of_a_file_goes_and_its_target_stays(tmp_path: Path) -> None:
    put(tmp_path, ("precious",))
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.written.note(folder.metrics)
    folder.metrics.symlink_to(tmp_path / "precious")
    folder.written.delete()
    assert (tmp_path / "precious").read_text() == "mine"
    assert not folder.metrics.is_symlink()
