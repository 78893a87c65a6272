"""``ddpm train``: options by diffusers' names, a dry run, and what a run refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.command_lines import error_of, tiny_options
from helpers.paths import EXAMPLES

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.cli.commands import main
from ddpm_pipeline.cli.train import parse_arguments
from ddpm_pipeline.training.config import PRESETS, TrainingConfig

EXAMPLE = EXAMPLES / "train.py"


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


def test_a_dry_run_prints_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *tiny_options(tmp_path), "--dry_run"]) == 0
    text = capsys.readouterr().out
    for line in ("parameters", "FLOPs per image", "memory", "images per epoch   40", "updates"):
        assert line in text
    assert json.loads(text[: text.index("\n}") + 2])["max_train_steps"] == 2
    assert not (tmp_path / "run").exists()


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


def test_a_folder_that_holds_a_model_is_not_trained_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = tiny_options(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/model_index.json").write_text("{}")
    code, printed = error_of(capsys, "train", *argv)
    assert code == 2
    assert "holds another run (model_index.json); choose another folder" in printed
    assert main(["train", *argv, "--dry_run"]) == 0


def test_switches_that_a_device_settles_are_typed_as_others() -> None:
    def typed(*words: str) -> tuple[bool | None, ...]:
        config = parse_arguments(["--train_data_dir", "x", *words]).training
        return config.compile, config.channels_last, config.deterministic

    assert typed() == (None, None, None)
    assert typed("--compile", "--no_channels_last") == (True, False, None)
    assert typed("--no-compile", "--deterministic", "False") == (False, None, False)
