"""The ``ddpm`` command.

    ddpm train  --train_data_dir photos/ --output_dir model
    ddpm sample model --num_images 16 --output samples.png

A subcommand is a line in COMMANDS and a module with a function ``run(argv)``. Exit codes: 0 for
success, 2 for a mistake in the arguments or the data, 1 for a failure, 3 if training succeeded and
its push to the Hub did not. For all but success one line is printed, and no traceback unless
DDPM_TRACEBACK is set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from ddpm_pipeline.arguments import complain

__all__ = ["COMMANDS", "Command", "main"]

_USAGE_ERRORS = (
    ValueError,
    TypeError,
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
)


class Command(NamedTuple):
    """What a subcommand does, and the module of this package whose ``run(argv)`` does it."""

    summary: str
    module: str


COMMANDS: dict[str, Command] = {
    "train": Command("train a model on a folder of images or a data set", "train_command"),
    "sample": Command("draw images from a model", "sample_command"),
    "bound": Command("measure bits per dimension of a model on images", "bound_command"),
    "score": Command("find the images that a model thinks least likely", "score_command"),
    "calibrate": Command("find a model's best variances and timesteps", "calibrate_command"),
    "evaluate": Command("compare a model's images with real ones", "evaluate_command"),
    "push": Command("push a model to the Hub", "push_command"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that the arguments name; the exit code."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    if name in {"", "-h", "--help"}:
        print(_overview())  # noqa: T201
        return 0 if name else 2
    if name not in COMMANDS:
        complain("ddpm", f"no subcommand {name!r}; there are {', '.join(COMMANDS)}")
        return 2
    try:
        import_module(f"ddpm_pipeline.{COMMANDS[name].module}").run(rest)
    except Exception as error:  # whatever it is, a user gets one line
        if os.environ.get("DDPM_TRACEBACK"):
            raise
        complain(f"ddpm {name}", str(error) or type(error).__name__)
        return 2 if isinstance(error, _USAGE_ERRORS) else 1
    except KeyboardInterrupt:
        complain(f"ddpm {name}", "interrupted")
        return 130
    return 0


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: ddpm COMMAND [OPTIONS]", "", *lines, "", "ddpm COMMAND --help"])
