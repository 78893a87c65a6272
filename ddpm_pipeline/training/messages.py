"""Errors of what opens images, in the words of a run.

    with naming_options("train_data_dir", "train_split"): open_images(...)

What opens images has arguments of its own, and a run calls them otherwise. An error names the
option that its reader gave.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ddpm_pipeline.common import names_option
from ddpm_pipeline.data import MeaninglessOptionError, StackError
from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["naming_options"]


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
        of_source = isinstance(error, MeaninglessOptionError | StackError)
        named = [source] if of_source else TrainingConfig.__dataclass_fields__
        if not names_option(message, named):
            message = f"{source}: {message}"
        error.args = (message,)
        raise
