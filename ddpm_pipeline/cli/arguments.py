"""Dataclasses from command-line arguments, and errors in one line.

parse(BoundConfig, ["model", "--data", "photos/"], prog="ddpm bound", positional=("model",))
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import is_dataclass
from typing import TypeVar, get_type_hints

from ddpm_pipeline.cli.mistakes import option_names, plain_mistake, underscored
from ddpm_pipeline.cli.printing import complain
from ddpm_pipeline.common import as_typed

__all__ = ["naming_options", "parse"]


T = TypeVar("T")


def parse(
    arguments: type[T],
    argv: Sequence[str],
    *,
    prog: str,
    positional: Sequence[str] = (),
    default: T | None = None,
) -> T:
    """Make an instance of a dataclass from the command line; its field docs are the help.

    Underscores and hyphens are alike in option names; nested dataclasses add no prefix.

    Arguments:
        arguments: The dataclass.
        argv: The arguments.
        prog: How the command is called.
        positional: Fields that the first arguments stand for, as far as these are no options.
        default: What options are unless given.
    Raises:
        SystemExit: After --help, with code 0; after a mistake and one line, with code 2.
        ValueError, OSError: If the dataclass refuses a value.
        ImportError: If tyro is missing; says what to install.
    """
    try:
        import tyro
    except ImportError:
        raise ImportError("the command line needs `pip install ddpm_pipeline[train]`") from None
    argv = list(_answered(arguments, _named(argv, positional)))
    options = {} if default is None else {"default": default}
    printed = io.StringIO()
    try:
        with redirect_stderr(printed), _whole_lines(argv):
            return tyro.cli(
                arguments,
                args=argv,
                prog=prog,
                use_underscores=True,
                config=(tyro.conf.OmitArgPrefixes,),
                **options,
            )
    except SystemExit as stop:
        if stop.code:
            message = plain_mistake(arguments, argv, printed.getvalue())
            said = as_typed(message, option_names(arguments))
            complain(prog, f"{said}; see {prog} --help")
        raise


@contextmanager
def _whole_lines(argv: Sequence[str]) -> Iterator[None]:
    """Keep tyro from breaking the lines of a mistake, which may hold paths; those of help wrap."""
    width = os.environ.get("COLUMNS")
    if not {"-h", "--help"} & set(argv):
        os.environ["COLUMNS"] = "100000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS", None)
        if width is not None:
            os.environ["COLUMNS"] = width


@contextmanager
def naming_options(arguments: type) -> Iterator[None]:
    """Have errors in the block write the options of a dataclass as they are typed."""
    try:
        yield
    except Exception as error:
        message = error.args[0] if len(error.args) == 1 else None
        # What is wrong in a saved model's files goes by the names that it has there.
        if isinstance(message, str) and not message.startswith("cannot load"):
            error.args = (as_typed(message, option_names(arguments)),)
        raise


def _named(argv: Sequence[str], positional: Sequence[str]) -> Iterator[str]:
    """Put the names of options before the arguments that stand first without one."""
    names = list(positional)
    for argument in argv:
        if argument.startswith("-"):
            names.clear()
        elif names:
            yield f"--{names.pop(0)}"
        yield argument


def _answered(arguments: type, argv: Iterable[str]) -> Iterator[str]:
    """Write switches that may also be left to a default, bool | None, as options with a value."""
    names = {f"--{name}" for name in _open_switches(arguments)}
    argv = list(argv)
    for i, argument in enumerate(argv):
        following = argv[i + 1] if i + 1 < len(argv) else ""
        option = underscored(argument)
        if option in names:
            yield from (option,) if following in {"True", "False", "None"} else (option, "True")
        elif option.replace("--no_", "--", 1) in names:
            yield from (option.replace("--no_", "--", 1), "False")
        else:
            yield argument


def _open_switches(arguments: type) -> Iterator[str]:
    """Name the options bool | None of a dataclass, and of those in its fields."""
    hints = get_type_hints(arguments) if is_dataclass(arguments) else {}
    for name, hint in hints.items():
        if hint == bool | None:
            yield name
        elif is_dataclass(hint):
            yield from _open_switches(hint)
