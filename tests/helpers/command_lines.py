"""``ddpm`` as a test calls it: the arguments of a tiny run, and how a mistake ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.training_runs import tiny_config

from ddpm_pipeline.cli.commands import main
from ddpm_pipeline.training.config import TrainingConfig

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

__all__ = ["error_of", "tiny_options"]


def tiny_options(folder: Path) -> list[str]:
    """A tiny run as the command line has it."""
    config = tiny_config(folder, max_train_steps=2)
    changed = [
        name
        for name in TrainingConfig.__dataclass_fields__
        if getattr(config, name) != getattr(TrainingConfig(), name) and name != "random_flip"
    ]
    return [*_options(config, *changed), "--random_flip"]


def _options(config: TrainingConfig, *names: str) -> list[str]:
    return [word for name in names for word in (f"--{name}", str(getattr(config, name)))]


def error_of(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """The exit code and the one line on standard error."""
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1, printed
    return code, printed
