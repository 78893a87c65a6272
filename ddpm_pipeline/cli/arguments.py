"""Dataclasses from command-line arguments, and errors in one line.

parse(BoundConfig, ["model", "--data", "photos/"], prog="ddpm bound", positional=("model",))
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import TypeVar, get_type_hints

__all__ = ["complain", "parse", "underscored"]


T = TypeVar("T")

_SWITCHES = (bool, bool | None)


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
        with redirect_stderr(printed):
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
            message = _unknown_options(arguments, argv) or _message(printed.getvalue())
            complain(prog, f"{message}; see {prog} --help")
        raise


def complain(prog: str, message: str) -> None:
    """Print an error in one line."""
    print(f"{prog}: error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201


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
    hints = get_type_hints(arguments) if is_dataclass(arguments) else {}
    names = {f"--{name}": name for name, hint in hints.items() if hint == bool | None}
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


def underscored(word: str) -> str:
    """Write an option's name with underscores, between which and hyphens nothing is told."""
    return word.replace("-", "_").replace("__", "--", 1) if word.startswith("--") else word


def _unknown_options(arguments: type, argv: Sequence[str]) -> str:
    """Name the options that there are not, each with the nearest that there is."""
    known = {f"--{name}" for name in _option_names(arguments)} | {"--help"}
    unknown = []
    for argument in argv:
        option = argument.partition("=")[0]
        name = underscored(option)
        if option.startswith("--") and name not in known:
            near = get_close_matches(name, known, n=1)
            unknown.append(option + (f" (did you mean {near[0]}?)" if near else ""))
    return f"Unrecognized options: {', '.join(unknown)}" if unknown else ""


def _option_names(arguments: type) -> Iterator[str]:
    """Yield the names of a dataclass's options, and of those in the dataclasses in it."""
    hints = get_type_hints(arguments)
    for field in fields(arguments):
        if is_dataclass(hints[field.name]):
            yield from _option_names(hints[field.name])
        else:
            yield field.name
            if hints[field.name] in _SWITCHES:
                yield f"no_{field.name}"


def _message(box: str) -> str:
    """Take what a tyro error says out of the frame and the help around it."""
    words = []
    for line in box.splitlines()[1:]:
        text = line.strip("│╰╯ ")
        if text.startswith(("Argument helptext", "For full helptext")):
            break
        if not set(text) <= set("─-"):
            words.append(text)
    text = " ".join(words)
    if found := re.match(r"Missing from [^:]*: ", text):
        names = dict.fromkeys(re.findall(r"(--\w+) ", text))
        return found[0] + ", ".join(names)
    # A dataclass that refuses a value says all there is to say.
    return re.sub(r"^Error parsing (?!--)[^:]*: ", "", text.rstrip("."))
