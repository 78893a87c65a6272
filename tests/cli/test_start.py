"""Help and mistakes are answered at once: before torch and the like are imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_pipeline.cli.commands import COMMANDS

HEAVY = ("torch", "diffusers", "accelerate", "transformers", "datasets")
LIGHT = ("numpy", "PIL")  # which tell a name of an image
RUN = f"""
import sys
from ddpm_pipeline.cli import main

try:
    code = main()
except SystemExit as stop:
    code = stop.code
loaded = [name for name in {HEAVY + LIGHT} if name in sys.modules]
print("imported:", *loaded, file=sys.stderr)
sys.exit(code)
"""
ON_MODELS = ("sample", "bound", "score", "calibrate", "evaluate")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with what looks like a model, images, and outputs that are there."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("model", "empty", "photos", "taken", "run", "splits/train", "splits/test"):
        (folder / name).mkdir(parents=True)
    for name in ("splits/train/a.png", "splits/test/b.png", "mixed/x.parquet", "mixed/a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    for name in ("model/model_index.json", "run/model_index.json", "taken/mine", "grid.png"):
        (folder / name).write_text("{}")
    return folder


def answer(place: Path, *argv: str, allowed: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    """The exit code, and what was printed on stderr; nothing heavy may have been imported."""
    run = subprocess.run(
        [sys.executable, "-c", RUN, *argv],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    *lines, imported = run.stderr.splitlines()
    assert set(imported.split()) <= {"imported:", *allowed}, (argv, lines)
    return run.returncode, lines


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)]
)
def test_help_imports_nothing_heavy(place: Path, argv: list[str]) -> None:
    assert answer(place, *argv) == (0, [])


MISTAKES: list[tuple[str, str]] = [
    ("trian", "no subcommand 'trian'"),
    *((f"{name} --modell x", "Unrecognized options: --modell") for name in COMMANDS),
    *((f"{name} nowhere --data photos", "there is no folder 'nowhere'") for name in ON_MODELS[1:]),
    *((f"{name} empty --data photos", "no model_index.json") for name in ON_MODELS[1:]),
    *((f"{name} model --data ./no", "data='./no' does not exist") for name in ON_MODELS[1:]),
    *((f"{name} model --data no", "the Hub could not be asked for a") for name in ON_MODELS[1:]),
    (
        "sample nowhere",
        "there is no folder 'nowhere', and models on the Hub are called OWNER/NAME",
    ),
    ("sample a/b/c", "there is no folder 'a/b/c'"),
    ("sample empty", "no model_index.json"),
    ("sample alice/digits", "cannot load 'alice/digits': HF_HUB_OFFLINE is set"),
    ("sample model --output grid.png", "output 'grid.png' exists"),
    ("sample model --output taken", "output 'taken' is not empty"),
    ("sample model --num_images 0", "num_images must be at least 1, got 0"),
    ("bound model --data photos --output_dir grid.png/x", "grid.png' is a file, not a folder"),
    ("score model --data photos --num_shown -1", "num_shown must be at least 0, got -1"),
    ("calibrate model --data photos --samplers ddpm", "samplers must be among"),
    ("calibrate model --data photos --features no.py", "features='no.py' does not exist"),
    ("evaluate model --data photos --samples no", "samples='no' does not exist"),
    ("evaluate model --data photos --bound_data ./no", "bound_data='./no' does not exist"),
    ("train", "give --train_data_dir or --dataset_name, got neither"),
    ("train --train_data_dir no", "train_data_dir='no' does not exist"),
    ("train --train_data_dir photos --validation_data_dir no", "validation_data_dir='no'"),
    ("train --train_data_dir photos --output_dir run", "holds another run (model_index.json)"),
    ("train --train_data_dir photos --output_dir grid.png", "grid.png' is a file, not a folder"),
    ("train --train_data_dir photos --resume_from_checkpoint no", "there is no folder 'no'"),
    ("train --train_data_dir photos --model_config_name_or_path no", "'no' does not exist"),
    ("train --train_data_dir photos --hub_model_id digits", "must have the form USER/NAME"),
    ("train --dataset_name no", "dataset_name='no' is no path here, and the Hub could"),
    ("train --config no.json", "no.json"),
    ("push nowhere alice/digits", "there is no folder 'nowhere'"),
    ("push empty alice/digits", "there is no saved model in 'empty': no model_index.json"),
    ("push model", "missing: --repo_id"),
]


@pytest.mark.parametrize(("line", "said"), MISTAKES)
def test_a_mistake_imports_nothing_heavy(place: Path, line: str, said: str) -> None:
    code, lines = answer(place, *line.split())
    assert len(lines) == 1
    assert said in lines[0]
    assert code == (1 if "alice/digits': HF" in lines[0] else 2)


ABOUT_DATA: list[tuple[str, str]] = [
    *(
        (f"{name} model --data {rest}", said)
        for name in ON_MODELS[1:]
        for rest, said in (
            (
                "splits --split vall",
                "split='vall': 'splits' has no such folder, but ['test",
            ),
            ("photos", "'photos' holds no images (0 other files)"),
            ("mixed", "'mixed' holds data of two kinds (a.png and x.parquet)"),
            ("grid.png", "'grid.png' is none of .npy, .npz, .parquet, an IDX file or a folder"),
            ("s-{0..1}.tar", "2 of the shards missing: s-0.tar, s-1.tar"),
        )
    ),
    (
        "evaluate model --data splits --bound_data splits --bound_split no",
        "split='no': 'splits' has",
    ),
    ("train --train_data_dir splits --train_split vall", "--train_split='vall': 'splits' has no"),
    (
        "train --train_data_dir splits --validation_split vall",
        "--validation_split='vall': 'splits' has no",
    ),
    (
        "train --train_data_dir splits --validation_data_dir photos",
        "--validation_data_dir: 'photos' h",
    ),
    ("train --train_data_dir photos", "--train_data_dir: 'photos' holds no images"),
    (
        "train --train_data_dir s-*.tar --streaming --max_train_steps 1",
        "s-*.tar' matches no shards",
    ),
]


@pytest.mark.parametrize(("line", "said"), ABOUT_DATA)
def test_what_names_of_files_tell_is_answered_without_torch(
    place: Path, line: str, said: str
) -> None:
    code, lines = answer(place, *line.split(), allowed=LIGHT)
    assert len(lines) == 1
    assert said in lines[0]
    assert code == 2


@pytest.mark.parametrize("module", ["ddpm_pipeline.cli", "ddpm_pipeline.cli.commands"])
def test_it_runs_as_the_console_scripts_call_it(module: str) -> None:
    code = f"import sys; from {module} import main; sys.exit(main())"
    ways = [[sys.executable, "-c", code], [sys.executable, "-m", "ddpm_pipeline.cli"]]
    for command in ways:
        run = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
        assert run.stdout.startswith("usage: ddpm COMMAND")
