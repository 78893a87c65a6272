"""Options in messages: found by their names, and written as a command line has them.

    as_typed("batch_size must be at least 1, got 0", ["batch_size"])    --batch_size must be ...
    names_option("no such folder", ["batch_size"])                      False

Messages name options as Python has them. Whoever typed a command reads what was typed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

__all__ = ["as_typed", "names_option"]


def as_typed(message: str, names: Iterable[str]) -> str:
    """Write the options in a message as they are typed, with two hyphens.

    Words that are names of options by chance, as "loss", are left alone unless a value follows,
    or they open the message and a verb follows.

    Arguments:
        message: Of an error or a warning.
        names: Of the options, with underscores.
    """
    message = message.replace("value_range=(low, high)", "value_range LOW HIGH")
    return _pattern(tuple(names)).sub(_typed, message)


def names_option(message: str, names: Iterable[str]) -> bool:
    """Tell whether a message names one of these options."""
    return _pattern(tuple(names)).search(message) is not None


def _typed(found: re.Match[str]) -> str:
    """Write one option; a switch that has a value as the switch that gives it this value."""
    value = found["value"]
    if value == "=True":
        return f"--{found['name']}"
    return f"--no_{found['name']}" if value == "=False" else f"--{found['name']}{value or ''}"


@cache
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """Match the names of options, with True, False or the equals sign that may follow."""
    longest_first = sorted(names, key=len, reverse=True)
    distinct = "|".join(name for name in longest_first if "_" in name) or r"(?!)"
    plain = "|".join(name for name in longest_first if "_" not in name) or r"(?!)"
    before, after = r"(?<![\w./'\"\\-])", r"(?![\w'\"/.-]\w|\w)"
    value = r"(?P<value>=True\b|=False\b|=)"
    verbs = r"(?= (?:must|needs|does|has|cannot|is)\b| ')"
    return re.compile(
        rf"{before}(?:(?P<name>(?:{distinct}){after}|(?:{plain})(?==)|(?<![\s\S])(?:{plain}){verbs})"
        rf"{value}?)"
    )
