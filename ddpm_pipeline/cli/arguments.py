"""Dataclasses from command-line arguments, and errors in one line."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import TypeVar

__all__ = ["complain", "parse"]


T = TypeVar("T")


def parse(arguments: type[T], argv: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """An instance of a dataclass from the command line; its field docs are the help.

    Underscores and hyphens are alike in option names; nested dataclasses add no prefix.

    Raises:
        SystemExit: After --help, with code 0; after a mistake and one line, with code 2.
        ValueError: If the dataclass refuses a value.
        ImportError: If tyro is missing; says what to install.
    """
    try:
        import tyro
    except ImportError:
        raise ImportError("the command line needs `pip install ddpm_pipeline[train]`") from None
    options = {} if default is None else {"default": default}
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            return tyro.cli(
                arguments,
                args=list(argv),
                prog=prog,
                use_underscores=True,
                config=(tyro.conf.OmitArgPrefixes,),
                **options,
            )
    except SystemExit as stop:
        if stop.code:
            complain(prog, f"{_message(printed.getvalue())}; see {prog} --help")
        raise


def complain(prog: str, message: str) -> None:
    """Print an error in one line."""
    print(f"{prog}: error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201


def _message(box: str) -> str:
    """What a tyro error says, without the frame and the help around it."""
    words = []
    for line in box.splitlines()[1:]:
        text = line.strip("│╰╯ ")
        if text.startswith(("Argument helptext", "For full helptext")):
            break
        if not set(text) <= set("─-"):
            words.append(text)
    # A dataclass that refuses a value says all there is to say.
    return re.sub(r"^Error parsing (?!--)[^:]*: ", "", " ".join(words).rstrip("."))
