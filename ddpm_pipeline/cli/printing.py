"""What a command prints: its results once, and an error in one line.

say(report.table(), "saved")       by the main process alone, paragraphs apart
log_to_terminal()                  what is logged, in the same form
complain("ddpm bound", "...")      ddpm bound: error: ...
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from ddpm_pipeline.common import printable

__all__ = ["complain", "log_to_terminal", "say"]


def complain(prog: str, message: str) -> None:
    """Print an error in one line, in which nothing moves the cursor or begins another line.

    Arguments:
        prog: How the command is called.
        message: What is wrong, in as many lines as it may have.
    """
    line = printable(" ".join(message.split()))
    print(f"{prog}: error: {line}", file=sys.stderr)  # noqa: T201


def say(*paragraphs: object, to_errors: bool = False) -> None:
    """Print what came of the work, on one of the processes that did it together.

    Arguments:
        paragraphs: What is said, with an empty line between any two; a path as it is, for
            other programs to read.
        to_errors: Whether it is beside the result, and goes to standard error.
    """
    from ddpm_pipeline.common import process_state

    if process_state().is_main_process:
        shown = [p if isinstance(p, Path) else _lines(str(p)) for p in paragraphs]
        print(*shown, sep="\n\n", file=sys.stderr if to_errors else sys.stdout)


def log_to_terminal() -> None:
    """Print what is logged, unless the program logs in a way of its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    logging.basicConfig(handlers=[handler])


class _Lines(logging.Formatter):
    """Gives messages alone, in which nothing moves the cursor."""

    def format(self, record: logging.LogRecord) -> str:
        return _lines(super().format(record))


def _lines(text: str) -> str:
    """Escape in a text what a terminal would not show; its lines stay."""
    return "\n".join(map(printable, text.split("\n")))
