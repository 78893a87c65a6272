"""What a command is given to work on, looked for before it imports what it needs for the work.

    on_hub = not_here(model="model", data="photos/", samples=None)      what only the Hub can tell
    check_output_folder("output_dir", "results")                        other answers of this disk
    require_split("photos/", "test")                                    a folder in it
    ask_hub(on_hub)                                                     once and shortly

A name that is nothing here is asked for on the Hub if it can be one of the Hub. All that can be
told without the network is told first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ddpm_pipeline.common import check_data, check_exists, check_model, is_repo_id
from ddpm_pipeline.data import is_shards

__all__ = ["HubName", "ask_hub", "not_here", "require_features", "require_split"]

# What training made of images may be called so, which only the model's file tells.
_OF_TRAINING = ("training", "validation")


class HubName(NamedTuple):
    """A name that is nothing here and may be on the Hub, with the option that it was given by."""

    option: str
    name: str


def not_here(*, model: str | None = None, **data: str | None) -> list[HubName]:
    """Refuse what is neither here nor, by its name, on the Hub; list what may be there.

    Arguments:
        model: A folder, or a name of the Hub; None is not given.
        data: Paths of images and names of data sets, by the options that name them.
    Raises:
        FileNotFoundError: If any is nowhere, or there is no saved model in the folder.
        NotADirectoryError: If the model is a file.
        ValueError: If one of its configs is damaged.
    """
    found = []
    if model is not None:
        check_model(model)
        if not Path(model).exists():
            found.append(HubName("model", model))
    given = {option: source for option, source in data.items() if source is not None}
    return found + [HubName(*item) for item in given.items() if not check_data(*item)]


def ask_hub(names: Sequence[HubName]) -> None:
    """Refuse names that the Hub does not know.

    Raises:
        HubError: If a model is not on the Hub, or the Hub could not be asked.
        FileNotFoundError: If a data set is not on the Hub, or the Hub could not be asked.
    """
    for option, name in names:
        if option == "model":
            from ddpm_pipeline.hub import check_on_hub

            check_on_hub(name)
        else:
            _ask_for_data_set(option, name)


def _ask_for_data_set(option: str, name: str) -> None:
    """Refuse a data set that the Hub does not know, and say whether it was asked at all."""
    from ddpm_pipeline.hub import HubError, NotOnHubError, check_on_hub

    given = f"{option}={name!r}"
    try:
        check_on_hub(name, "dataset")
    except NotOnHubError as error:
        raise FileNotFoundError(
            f"{given} is neither a path here nor a data set on the Hub: {error}"
        ) from error
    except HubError as error:
        raise FileNotFoundError(
            f"{given} is no path here, and the Hub could not be asked for a data set of that "
            f"name: {error}"
        ) from error


def require_split(source: str | None, split: str | None) -> None:
    """Refuse images here of which names of files tell that they cannot be read.

    Arguments:
        source: Where they are; None is not given.
        split: Which part of them.
    Raises:
        ValueError, FileNotFoundError: As ``check_source``.
    """
    if source is None or split in _OF_TRAINING:
        return
    if Path(source).expanduser().exists() or is_shards(source):
        from ddpm_pipeline.data import check_source  # which needs NumPy and Pillow

        check_source(source, split)


def require_features(features: str | None, option: str = "features") -> None:
    """Refuse features that are neither here nor, by their name, on the Hub.

    Raises:
        FileNotFoundError: If there is no such file or folder.
    """
    if features is None or features == "inception":
        return
    if features.endswith(".py"):
        check_exists(option, features)
    elif not Path(features).exists() and not is_repo_id(features):
        raise FileNotFoundError(
            f"{option}={features!r} does not exist, and vision models on the Hub are called "
            "OWNER/NAME; else it is 'inception' or a .py file"
        )
