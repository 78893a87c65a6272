"""The ``ddpm`` command.

    ddpm train  --train_data_dir photos/ --output_dir model
    ddpm sample model --num_images 16 --output samples.png

A subcommand is a line in COMMANDS and a file of its name beside this one with ``run(argv)``. Exit codes: 0 for
success, 2 for a mistake in the arguments or the data, 1 for a failure, 3 if training succeeded and
its push to the Hub did not. For all but success one line is printed, and no traceback unless
DDPM_TRACEBACK is set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from ddpm_pipeline.cli.arguments import complain

__all__ = ["COMMANDS", "main"]


_USAGE_ERRORS = (
    ValueError,
    TypeError,
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
)


COMMANDS: dict[str, str] = {
    "train": "train a model on a folder of images or a data set",
    "sample": "draw images from a model",
    "bound": "measure bits per dimension of a model on images",
    "score": "find the images that a model thinks least likely",
    "calibrate": "find a model's best variances and timesteps",
    "evaluate": "compare a model's images with real ones",
    "push": "push a model to the Hub",
}
"""The subcommands, and what each does."""


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
        _runner(name)(rest)
    except Exception as error:  # whatever it is, a user gets one line
        if os.environ.get("DDPM_TRACEBACK"):
            raise
        complain(f"ddpm {name}", str(error) or type(error).__name__)
        return 2 if isinstance(error, _USAGE_ERRORS) else 1
    except KeyboardInterrupt:
        complain(f"ddpm {name}", "interrupted")
        return 130
    return 0


def _runner(name: str) -> Callable[[Sequence[str]], None]:
    """Import one subcommand, and nothing that the others need."""
    match name:
        case "train":
            from ddpm_pipeline.cli.train import run
        case "sample":
            from ddpm_pipeline.cli.sample import run
        case "bound":
            from ddpm_pipeline.cli.bound import run
        case "score":
            from ddpm_pipeline.cli.score import run
        case "calibrate":
            from ddpm_pipeline.cli.calibrate import run
        case "evaluate":
            from ddpm_pipeline.cli.evaluate import run
        case "push":
            from ddpm_pipeline.cli.push import run
    return run


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(["usage: ddpm COMMAND [OPTIONS]", "", *lines, "", "ddpm COMMAND --help"])
