"""The command line: every subcommand, one line for a mistake, the right exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_lines import error_of
from PIL import Image

from ddpm_pipeline import __version__
from ddpm_pipeline.cli.commands import COMMANDS, main


def test_the_overview_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert main([]) == 2


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ddpm_pipeline {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_opens_with_what_the_command_does(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    first = capsys.readouterr().out.split("\n\n")[1].split()[0]
    known = {"Train", "Draw", "Edit", "Measure", "Score", "Compare", "Make", "Push", "Show"}
    assert first in known


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "no subcommand 'trian' (did you mean train?); there are train, sample"),
        (
            ["train", "--resolutionn", "8"],
            "Unrecognized options: --resolutionn (did you mean --re",
        ),
        (
            ["train", "--resolution", "x"],
            "--resolution must be an integer or two integers, got 'x'",
        ),
        (["train", "--resolution", "0"], "train: error: --resolution must be an integer"),
        (
            ["train", "--prediction_type", "eps"],
            "--prediction_type must be one of epsilon, sample, v_prediction, got 'eps'",
        ),
        (["train"], "give --train_data_dir or --dataset_name, got neither"),
        (["train", "--train_data_dir", "no/such/folder"], "no/such/folder"),
        (["train", "--config", "no.json"], "no.json"),
        (["train", "--config"], "--config needs a value"),
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
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("ddpm_pipeline.training.train", fail)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert error_of(capsys, "train", "--train_data_dir", str(tmp_path))[0] == code


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "--batch"]])
def test_a_reader_who_stops_is_no_failure(arguments: list[str]) -> None:
    """As `ddpm train --help | head -1`: nobody reads what it prints, or not all of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ddpm_pipeline.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    printed = process.stderr.read()
    process.stderr.close()
    if "--help" in arguments:
        assert (process.wait(), printed) == (141, "")
    else:
        assert (process.wait(), printed.count("\n")) == (2, 1)
