"""The command line: options by diffusers' names, one line for a mistake, the right exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.paths import EXAMPLES
from helpers.training_runs import tiny_config
from PIL import Image

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.cli.commands import COMMANDS, main
from ddpm_pipeline.cli.train import parse_arguments
from ddpm_pipeline.training.config import PRESETS, TrainingConfig

EXAMPLE = EXAMPLES / "train.py"


def options(config: TrainingConfig, *names: str) -> list[str]:
    return [word for name in names for word in (f"--{name}", str(getattr(config, name)))]


def tiny_options(folder: Path) -> list[str]:
    """A tiny run as the command line has it."""
    config = tiny_config(folder, max_train_steps=2)
    changed = [
        name
        for name in TrainingConfig.__dataclass_fields__
        if getattr(config, name) != getattr(TrainingConfig(), name) and name != "random_flip"
    ]
    return [*options(config, *changed), "--random_flip"]


def error_of(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """The exit code and the one line on standard error."""
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1, printed
    return code, printed


def test_flags_of_the_stock_example_work() -> None:
    config = parse_arguments(
        [
            "--train_data_dir=photos",
            "--resolution",
            "32",
            "--center_crop",
            "--random_flip",
            "--use_ema",
            "--train_batch_size",
            "16",
            "--num_epochs",
            "3",
            "--gradient_accumulation_steps",
            "2",
            "--learning_rate",
            "2e-4",
            "--lr_warmup_steps",
            "500",
            "--mixed_precision",
            "no",
            "--logger",
            "tensorboard",
            "--prediction_type",
            "epsilon",
            "--ema_max_decay",
            "0.99",
            "--checkpoints_total_limit",
            "3",
            "--resume_from_checkpoint",
            "latest",
            "--adam_beta1",
            "0.95",
            "--output_dir",
            "out",
        ]
    ).training
    assert config == TrainingConfig(
        train_data_dir="photos",
        resolution=32,
        random_flip=True,
        train_batch_size=16,
        num_epochs=3,
        gradient_accumulation_steps=2,
        learning_rate=2e-4,
        lr_warmup_steps=500,
        mixed_precision="no",
        logger="tensorboard",
        prediction_type="epsilon",
        ema_decay=(0.99,),
        checkpoints_total_limit=3,
        adam_beta1=0.95,
        output_dir="out",
    )


def test_hyphens_and_several_values_work() -> None:
    config = parse_arguments(
        [
            "--train-batch-size",
            "8",
            "--no-use-ema",
            "--ema-decay",
            "0.9",
            "0.99",
            "--validation-size",
            "0.1",
        ]
    ).training
    assert (config.train_batch_size, config.use_ema, config.ema_decay) == (8, False, (0.9, 0.99))
    assert config.validation_size == 0.1


def test_a_preset_and_a_file_choose_the_defaults(tmp_path: Path) -> None:
    config = parse_arguments(["--preset", "ddpm", "--seed", "3"]).training
    assert config == PRESETS["ddpm"].replace(seed=3)
    TrainingConfig(resolution=16, seed=4).save_json(tmp_path / "training_config.json")
    config = parse_arguments(
        ["--config", str(tmp_path / "training_config.json"), "--seed", "5"]
    ).training
    assert config == TrainingConfig(resolution=16, seed=5)


def test_every_option_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in TrainingConfig.__dataclass_fields__:
        assert f"--{name}" in text
    assert "Images: a folder (any nesting), a .npy, .npz, IDX or .parquet file" in text


def test_the_overview_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert main([]) == 2


def test_training_and_sampling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *tiny_options(tmp_path)]) == 0
    assert "model after 2 steps" in capsys.readouterr().out
    model = str(tmp_path / "run")
    grid = tmp_path / "new" / "grid.png"
    draw = ["--num_images", "5", "--num_inference_steps", "2", "--batch_size", "2"]
    assert main(["sample", model, *draw, "--output", str(grid)]) == 0
    assert capsys.readouterr().out.strip() == str(grid)
    with Image.open(grid) as image:
        assert image.size == (28, 19)  # three columns, two rows
        pixels = np.asarray(image)
    before = grid.read_bytes()
    with pytest.raises(SystemExit, match="2"):
        main(["sample", model, *draw, "--seed", "9", "--output", str(grid)])
    assert "exists; pass overwrite to replace it" in capsys.readouterr().err
    assert grid.read_bytes() == before
    again = ["--seed", "9", "--overwrite", "--output", str(grid)]
    assert main(["sample", model, *draw, *again]) == 0
    assert grid.read_bytes() != before
    assert main(["sample", "--model", model, *draw, "--output", str(tmp_path / "each")]) == 0
    for i in range(5):
        y, x = 1 + i // 3 * 9, 1 + i % 3 * 9
        with Image.open(tmp_path / "each" / f"{i:06d}.png") as image:
            assert np.array_equal(pixels[y : y + 8, x : x + 8], np.asarray(image))


def test_a_dry_run_prints_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *tiny_options(tmp_path), "--dry_run"]) == 0
    text = capsys.readouterr().out
    for line in ("parameters", "FLOPs per image", "memory", "images per epoch   40", "updates"):
        assert line in text
    assert json.loads(text[: text.index("\n}") + 2])["max_train_steps"] == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "no subcommand 'trian'; there are train, sample"),
        (["train", "--resolutionn", "8"], "Unrecognized options: --resolutionn"),
        (["train", "--resolution", "x"], "Error parsing --resolution: invalid literal"),
        (["train", "--resolution", "0"], "train: error: resolution must be an integer"),
        (["train", "--prediction_type", "eps"], "invalid choice 'eps'"),
        (["train"], "give train_data_dir or dataset_name, got neither"),
        (["train", "--train_data_dir", "no/such/folder"], "no/such/folder"),
        (["train", "--config", "no.json"], "no.json"),
        (["sample"], "--model"),
        (["sample", "no/such/model", "--num_images", "0"], "num_images must be at least 1"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    code, printed = error_of(capsys, *argv)
    assert code == 2
    assert message in printed


def test_an_empty_folder_and_a_foreign_run_are_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    code, printed = error_of(capsys, "train", "--train_data_dir", str(tmp_path / "empty"))
    assert (code, "holds no images" in printed) == (2, True)
    argv = tiny_options(tmp_path)
    assert main(["train", *argv]) == 0
    capsys.readouterr()
    code, printed = error_of(capsys, "train", *argv, "--seed", "9")
    assert (code, "seed: 0 → 9" in printed) == (2, True)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FloatingPointError("the loss is nan"), 1),
        (OSError(28, "No space left on device"), 1),
        (RuntimeError("two\nlines"), 1),
        (MemoryError(), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_a_failure_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("ddpm_pipeline.training.train", fail)
    assert error_of(capsys, "train", "--train_data_dir", "x")[0] == code


def test_a_missing_tyro_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tyro", None)
    code, printed = error_of(capsys, "train")
    assert code == 1
    assert "pip install ddpm_pipeline[train]" in printed


def test_the_example_is_the_command(tmp_path: Path) -> None:
    """In a process of its own, as python and accelerate launch start it."""
    run = subprocess.run(
        [sys.executable, str(EXAMPLE), *tiny_options(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "model after 2 steps" in run.stdout
    assert DDPMPipeline.from_pretrained(tmp_path / "run").unet.dtype == torch.float32
