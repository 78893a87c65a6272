"""What a command is given to work on, looked for before it imports what it needs for the work.

    require_model("model")                     a folder here, or a model of the Hub
    require_data(data="photos/", samples=None)

What is not here is asked for on the Hub, once and shortly, if its name can be one of the Hub.
"""

from __future__ import annotations

from pathlib import Path

from ddpm_pipeline.common import check_data, check_exists, check_model

__all__ = ["require_data", "require_features", "require_model"]


def require_model(model: str) -> None:
    """Refuse a model that is neither in a folder here nor on the Hub.

    Raises:
        FileNotFoundError: If there is no such folder, or no saved model in it.
        NotADirectoryError: If it is a file.
        ValueError: If one of its configs is damaged.
        HubError: If its name can be one of the Hub, which does not know it or cannot be reached.
    """
    check_model(model)
    if not Path(model).exists():
        from ddpm_pipeline.hub import check_on_hub

        check_on_hub(model)


def require_data(**sources: str | None) -> None:
    """Refuse images that are neither here nor a data set of the Hub.

    Arguments:
        sources: Paths and names of data sets, by the options that name them; None is not given.
    Raises:
        FileNotFoundError: If any is neither, or the Hub cannot be reached.
    """
    for option, source in sources.items():
        if source is not None and not check_data(option, source):
            _check_data_set(option, source)


def require_features(features: str | None) -> None:
    """Refuse features whose file is not here; other names are those of features or of the Hub.

    Raises:
        FileNotFoundError: If there is no such .py file.
    """
    if features is not None and features.endswith(".py"):
        check_exists("features", features)


def _check_data_set(option: str, name: str) -> None:
    from ddpm_pipeline.hub import HubError, check_on_hub

    try:
        check_on_hub(name, "dataset")
    except HubError as error:
        raise FileNotFoundError(
            f"{option}={name!r} is neither a path here nor a data set on the Hub: {error}"
        ) from error
