"""Errors in the words of whoever gave the options.

    with naming_options("train_data_dir", "train_split"): open_images(...)
    as_typed("train_batch_size=64 is more ...")        --train_batch_size=64 is more ...

What opens images has arguments of its own; a run calls them otherwise, and the command writes its
options with hyphens. An error names the option that its reader typed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["as_typed", "naming_options"]


_OWN_NAMES: tuple[tuple[str, str], ...] = (
    (r"(?<![\w_])(?:a )?strict refuses that", "strict_data refuses that"),
    (r"\bunder --?strict(?:_data)?\b", "under strict_data"),
    (r"\blabels=True\b", "class_conditional"),
    (r"^(labels? missing)", r"class_conditional: \1"),
    (r"\bnum_classes or class_names must be given", "num_classes must be given"),
)
"""Arguments of ``open_images`` and ``open_stream``, and what a run calls them."""


@contextmanager
def naming_options(source: str, split: str) -> Iterator[None]:
    """Have errors in the block name the options of a run.

    Arguments:
        source: The option that names the images.
        split: The option that names a part of them.
    """
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError) as error:
        if len(error.args) != 1 or not isinstance(error.args[0], str):
            raise
        message = re.sub(r"(?<![\w_])split=", f"{split}=", error.args[0])
        for pattern, words in _OWN_NAMES:
            message = re.sub(pattern, words, message)
        if not _names().search(message):
            message = f"{source}: {message}"
        error.args = (message,)
        raise


def as_typed(message: str) -> str:
    """Write the options in a message as they are typed, with two hyphens.

    Words that are names of options by chance, as "loss", are left alone unless a value follows.
    """
    message = message.replace("value_range=(low, high)", "value_range LOW HIGH")
    return _names().sub(_typed, message)


def _typed(found: re.Match[str]) -> str:
    value = found["value"]
    if value == "=True":
        return f"--{found['name']}"
    return f"--no_{found['name']}" if value == "=False" else f"--{found['name']}{value or ''}"


@cache
def _names() -> re.Pattern[str]:
    """Match the names of options, with True, False or the equals sign that may follow."""
    names = sorted(TrainingConfig.__dataclass_fields__, key=len, reverse=True)
    distinct = "|".join(name for name in names if "_" in name)
    plain = "|".join(name for name in names if "_" not in name)
    before, after = r"(?<![\w./'\"\\-])", r"(?![\w'\"/.-]\w|\w)"
    value = r"(?P<value>=True\b|=False\b|=)"
    verbs = r"(?= (?:must|needs|does|has|cannot|is)\b| ')"
    return re.compile(
        rf"{before}(?:(?P<name>(?:{distinct}){after}|(?:{plain})(?==)|(?<![\s\S])(?:{plain}){verbs})"
        rf"{value}?)"
    )
