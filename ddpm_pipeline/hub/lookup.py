"""One short question to the Hub before a command begins: is there such a model, or data set?

    check_on_hub("alice/digits")
    check_on_hub("alice/photos", "dataset")

What is in the cache is not asked for: it can be loaded without the Hub.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, constants, try_to_load_from_cache

from ddpm_pipeline.common import MODEL_INDEX
from ddpm_pipeline.hub.errors import explained
from ddpm_pipeline.hub.requests import within

__all__ = ["check_on_hub"]

_LIMIT = 10.0  # seconds, in all


def check_on_hub(
    name: str, kind: Literal["model", "dataset"] = "model", *, limit: float = _LIMIT
) -> None:
    """Refuse a model or a data set that is neither in the cache nor on the Hub.

    The Hub is asked once. It is not asked again when it fails, since whoever waits for the answer
    may only have mistyped the name of a folder.

    Arguments:
        name: OWNER/NAME; of data sets also a name without an owner.
        kind: What it is a name of.
        limit: Seconds in all until the question is given up.
    Raises:
        HubError: If the Hub does not know it, or cannot be reached. HubTimeoutError if it does
            not answer in time.
    """
    is_cached, ask = {
        "model": (_is_model_cached, HfApi().model_info),
        "dataset": (_is_data_set_cached, HfApi().dataset_info),
    }[kind]
    if not is_cached(name):
        with explained("load", name):
            within(limit, lambda: ask(name))


def _is_model_cached(name: str) -> bool:
    """Tell whether a model, or the beginning of it, is in huggingface_hub's cache."""
    return isinstance(try_to_load_from_cache(name, MODEL_INDEX), str)


def _is_data_set_cached(name: str) -> bool:
    """Tell whether a data set is in the cache of `datasets`, whose folders are OWNER___NAME.

    It writes NAME in snake case, so case and underscores are not looked at.
    """
    folder = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    wanted = _plain(name.replace("/", "___"))
    return folder.is_dir() and any(_plain(path.name) == wanted for path in folder.iterdir())


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
