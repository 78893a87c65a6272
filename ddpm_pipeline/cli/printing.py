"""What a command prints: its results once, and an error in one line.

say(report.table(), "saved")       by the main process alone, paragraphs apart
complain("ddpm bound", "...")      ddpm bound: error: ...
"""

from __future__ import annotations

import sys

from ddpm_pipeline.common import printable

__all__ = ["complain", "say"]


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
        paragraphs: What is said, with an empty line between any two.
        to_errors: Whether it is beside the result, and goes to standard error.
    """
    from ddpm_pipeline.common import process_state

    if process_state().is_main_process:
        print(*paragraphs, sep="\n\n", file=sys.stderr if to_errors else sys.stdout)
