"""The ``ddpm`` command.

    ddpm train  --train_data_dir photos/ --output_dir model
    ddpm sample model --num_images 16 --output samples.png

A subcommand is a line in COMMANDS, a case in ``_runner`` and a file of its name beside this one
with ``run(argv)``. That file parses the arguments and looks whether the model, the data and the
output can be what they name, and only then imports what it needs for its work: help and mistakes
are answered at once.

Exit codes: 0 for success, 2 for a mistake in the arguments or the data, 1 for a failure, 3 if
training succeeded and its push to the Hub did not, 130 after Ctrl-C, 141 if nobody read all that
was printed. Training that Ctrl-C stops saves a checkpoint first, and then ends with 0. For all but
success one line is printed, and no traceback unless DDPM_TRACEBACK is set; for the last nothing.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from ddpm_pipeline.cli.printing import complain, log_to_terminal
from ddpm_pipeline.common import __version__

__all__ = ["COMMANDS", "main"]


_UNREAD = 128 + 13  # as a shell says that SIGPIPE ended a process
# They log what they then raise, and that is said in one line here.
_TALKATIVE = (
    "datasets.packaged_modules",
    "diffusers.models.model_loading_utils",
    "diffusers.models.modeling_utils",
)
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
    "edit": "vary, fill, restore or walk between images by a model",
    "bound": "measure bits per dimension of a model on images",
    "score": "find the images that a model thinks least likely",
    "calibrate": "find a model's best variances and timesteps",
    "evaluate": "compare a model's images with real ones",
    "average": "make a model of any average of a run's weights",
    "export": "make a model of a training run's checkpoint",
    "push": "push a model to the Hub",
    "app": "try models on a page in the browser",
}
"""The subcommands, and what each does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that the arguments name.

    Arguments:
        argv: The arguments; those of the process by default.
    Returns:
        The exit code.
    """
    # Names of files may hold bytes that are no UTF-8; they are printed as they are.
    if getattr(sys.stdout, "errors", "") == "strict":
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # as `ddpm train --help | head -1` leaves it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _UNREAD


def _run(argv: list[str]) -> int:
    """Run the subcommand, and print what goes wrong in one line."""
    name, *rest = argv or [""]
    if name in {"", "-h", "--help"}:
        print(_overview())  # noqa: T201
        return 0 if name else 2
    if name == "--version":
        print(f"ddpm_pipeline {__version__}")  # noqa: T201
        return 0
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        complain("ddpm", f"no subcommand {name!r}{hint}; there are {', '.join(COMMANDS)}")
        return 2
    log_to_terminal()
    for logger in _TALKATIVE:
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    try:
        _runner(name)(rest)
    except Exception as error:  # whatever it is, a user gets one line
        is_unread = isinstance(error, BrokenPipeError) and _nobody_reads()
        if is_unread or os.environ.get("DDPM_TRACEBACK"):
            raise
        complain(f"ddpm {name}", str(error) or type(error).__name__)
        return 2 if isinstance(error, _USAGE_ERRORS) else 1
    except KeyboardInterrupt:
        complain(f"ddpm {name}", "interrupted")
        return 130
    return 0


def _runner(name: str) -> Callable[[Sequence[str]], None]:  # noqa: C901 (a case for each)
    """Import one subcommand, and nothing that the others need."""
    match name:
        case "train":
            from ddpm_pipeline.cli.train import run
        case "sample":
            from ddpm_pipeline.cli.sample import run
        case "edit":
            from ddpm_pipeline.cli.edit import run
        case "bound":
            from ddpm_pipeline.cli.bound import run
        case "score":
            from ddpm_pipeline.cli.score import run
        case "calibrate":
            from ddpm_pipeline.cli.calibrate import run
        case "evaluate":
            from ddpm_pipeline.cli.evaluate import run
        case "average":
            from ddpm_pipeline.cli.average import run
        case "export":
            from ddpm_pipeline.cli.export import run
        case "push":
            from ddpm_pipeline.cli.push import run
        case "app":
            from ddpm_pipeline.cli.app import run
    return run


def _nobody_reads() -> bool:
    """Tell whether the other end of standard output, a pipe, is closed."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _overview() -> str:
    """Lay out the help of ``ddpm`` itself."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        ["usage: ddpm COMMAND [OPTIONS]", "", *lines, "", "ddpm COMMAND --help", "ddpm --version"]
    )
