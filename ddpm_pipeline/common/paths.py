"""What an option that names a model, images or an output can stand for, found out at once.

    check_model("runs/digits")                       a saved model in a folder
    check_model("alice/digits")                      may be on the Hub, which nobody asks here
    check_data("data", "photos/")                    files here, or the name of a data set
    check_output_folder("output_dir", "runs/new")    can be made, or is there
    expand_home(options, "data", "output_dir")       ~ is the home of the user

A name here is a path before it is a name of the Hub. A model of the Hub is called OWNER/NAME: a
word without an owner is taken for a folder that is missing, not for one of the old names that the
Hub still leads on from. Data sets keep those, as "mnist".

They look at the disk and at nothing else, and cost nothing to import, so that a command refuses a
mistake before it imports what it needs for its work.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "MODEL_INDEX",
    "at_home",
    "check_data",
    "check_exists",
    "check_has_folder",
    "check_model",
    "check_new_folder",
    "check_output_file",
    "check_output_folder",
    "check_saved_model",
    "expand_home",
    "is_hub_name",
    "is_repo_id",
    "no_empty_folder",
]

MODEL_INDEX = "model_index.json"
"""The file that makes a folder a saved model."""
_HUB_NAME = re.compile(r"(\b[\w.-]{1,96}\b/)?\b[\w.-]{1,96}\b", re.ASCII)
_FILE_SUFFIXES = {".npy", ".npz", ".gz", ".zip", ".tar", ".parquet", ".png", ".jpg"}


def expand_home(options: object, *names: str) -> None:
    """Put home folders in place of ~ and ~USER at the beginning of paths.

    A shell does so in ``--output_dir ~/model`` and not in ``--output_dir=~/model``, and nobody
    does in Python, where a folder called ~ would be made.

    Arguments:
        options: An instance of a dataclass, frozen or not, which is changed.
        names: Its fields that hold paths, or names that are no path, or None.
    Raises:
        FileNotFoundError: If there is no such user.
    """
    for name in names:
        path = getattr(options, name)
        if path is not None and os.fspath(path).startswith("~"):
            object.__setattr__(options, name, type(path)(at_home(name, path)))


def at_home(option: str, path: str | os.PathLike) -> str:
    """Give a path with the home folder in place of ~ or ~USER at its beginning.

    Raises:
        FileNotFoundError: If there is no such user.
    """
    found = os.path.expanduser(name := os.fspath(path))  # noqa: PTH111 (it leaves ./ and // alone)
    if found.startswith("~"):
        user = name[1:].partition(os.sep)[0]
        raise FileNotFoundError(
            f"{option}={name!r}: there is no user {user!r} on this machine; a folder here whose "
            f"name begins with ~ is given as {'./' + name!r}"
        )
    return found


def is_repo_id(name: str) -> bool:
    """Tell whether a name has the form OWNER/NAME that the Hub asks for."""
    return "/" in name and is_hub_name(name)


def check_model(model: str) -> None:
    """Refuse a model that is neither saved in a folder here nor, by its name, on the Hub.

    Raises:
        FileNotFoundError: If there is no such folder, or no saved model in it.
        NotADirectoryError: If it is a file.
    """
    if Path(model).exists():
        check_saved_model(model)
    elif not is_repo_id(model):
        raise FileNotFoundError(
            f"there is no folder {model!r}, and models on the Hub are called OWNER/NAME"
        )


def check_saved_model(folder: str | os.PathLike) -> None:
    """Refuse a folder that holds no saved model.

    Raises:
        FileNotFoundError: If there is no such folder, or no saved model in it.
        NotADirectoryError: If it is a file.
        ValueError: If one of its configs is damaged.
    """
    path, name = Path(folder), os.fspath(folder)
    if not path.exists():
        raise FileNotFoundError(f"there is no folder {name!r}")
    if not path.is_dir():
        raise NotADirectoryError(f"{name!r} is a file, not the folder of a saved model")
    if not (path / MODEL_INDEX).is_file():
        is_run = (path / "checkpoints").is_dir() or (path / "state.json").is_file()
        hint = f"; `ddpm export {name} --output DIR` makes one of its checkpoint" if is_run else ""
        raise FileNotFoundError(f"there is no saved model in {name!r}: no {MODEL_INDEX}{hint}")
    for part in (MODEL_INDEX, "unet/config.json", "scheduler/scheduler_config.json"):
        if (path / part).is_file():
            _check_object(path / part, f"the saved model in {name!r} is damaged: {part}")


def _check_object(path: Path, begin: str) -> None:
    """Refuse a file that holds no object of JSON."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # of JSON, of the encoding, of the depth
        raise ValueError(f"{begin} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{begin} holds no object of JSON")


def check_has_folder(model: str, needed: str) -> None:
    """Refuse a model that is not in a folder here, where results would go.

    Arguments:
        model: A folder, or a name of the Hub.
        needed: What must be given for a model of the Hub.
    Raises:
        FileNotFoundError: If it is neither.
        ValueError: If it may be on the Hub.
    """
    if not Path(model).is_dir():
        check_model(model)
        raise ValueError(f"{needed} for model={model!r}, which is no folder on this machine")


def check_data(option: str, source: str) -> bool:
    """Refuse images that are neither here nor, by their name, a data set of the Hub.

    Arguments:
        option: The option that names them.
        source: A path, or the name of a data set.
    Returns:
        Whether they are here; otherwise only the Hub can tell.
    Raises:
        FileNotFoundError: If they are nowhere.
    """
    if Path(source).expanduser().exists() or _is_pattern(source):
        return True
    if Path(source).suffix.lower() in _FILE_SUFFIXES or not is_hub_name(source):
        raise FileNotFoundError(f"{option}={source!r} does not exist")
    return False


def _is_pattern(source: str) -> bool:
    """Tell whether a name stands for several shards, as train-{0000..0127}.tar does."""
    return source.endswith((".tar", ".parquet")) and any(c in source for c in "{*?[")


def check_exists(option: str, path: str, note: str = "") -> None:
    """Refuse a path that is not here.

    Arguments:
        option: The option that names it.
        path: Where it would be; ~ is the user's home.
        note: What the message says after that.
    Raises:
        FileNotFoundError: If nothing is there.
    """
    if not Path(path).expanduser().exists():
        raise FileNotFoundError(f"{option}={path!r} does not exist{note}")


def check_output_folder(option: str, folder: str | os.PathLike) -> None:
    """Refuse a folder that can neither be made nor be written to.

    Raises:
        NotADirectoryError: If it, or what it would be made in, is a file.
        PermissionError: If this user may not write there.
    """
    _check_room(option, folder, Path(folder))


def check_new_folder(option: str, folder: str | os.PathLike) -> None:
    """Refuse a folder that can not be made or written to, or that holds something.

    Raises:
        FileExistsError: If there is anything in it.
        NotADirectoryError, PermissionError: As ``check_output_folder``.
    """
    check_output_folder(option, folder)
    path = Path(folder)
    if path.exists() and any(path.iterdir()):
        raise FileExistsError(f"{option} {str(folder)!r} is not empty; choose a new folder")


@contextmanager
def no_empty_folder(folder: str | os.PathLike) -> Iterator[None]:
    """Take away, when the block fails, folders that it made on the way to one and left empty."""
    path = Path(folder).absolute()
    missing = [part for part in (path, *path.parents) if not part.exists()]
    try:
        yield
    except BaseException:
        for part in missing:
            if part.is_dir() and not any(part.iterdir()):
                part.rmdir()
        raise


def check_output_file(option: str, file: str | os.PathLike) -> None:
    """Refuse a file that cannot be written.

    Raises:
        IsADirectoryError: If it is a folder.
        NotADirectoryError: If what its folder would be made in is a file.
        PermissionError: If this user may not write there.
    """
    if Path(file).is_dir():
        raise IsADirectoryError(f"{option}={os.fspath(file)!r} must be a file, but is a folder")
    _check_room(option, file, Path(file).parent)


def _check_room(option: str, output: str | os.PathLike, folder: Path) -> None:
    """Refuse an output whose folder can neither be made nor be written to."""
    there = next(part for part in (folder, *folder.absolute().parents) if part.exists())
    place = f"{option}={os.fspath(output)!r} cannot be written: {str(there)!r}"
    if not there.is_dir():
        raise NotADirectoryError(f"{place} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"{place} is read-only")


def is_hub_name(name: str) -> bool:
    """Tell whether a name is well formed, with an owner or without."""
    odd = "--" in name or ".." in name or name.endswith(".git")
    return not odd and _HUB_NAME.fullmatch(name) is not None
