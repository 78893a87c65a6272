"""What a run needs on the disk, looked for before torch is imported.

check_sources(config)      the images are here, as far as they are not on the Hub
check_start(config)        there is a checkpoint to go on from, and no other run in the way
check_splits(config)       the splits are in the folders that are read
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ddpm_pipeline.common import check_exists, check_output_folder, is_repo_id
from ddpm_pipeline.data import data_kind, is_shards
from ddpm_pipeline.hub import parse_hub_checkpoint
from ddpm_pipeline.training.messages import naming_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ddpm_pipeline.training.config import TrainingConfig

__all__ = [
    "check_given_checkpoint",
    "check_sources",
    "check_splits",
    "check_start",
    "has_checkpoint",
    "refuse_used_folder",
]


def check_sources(config: TrainingConfig) -> None:
    """Refuse a run without data, and paths that are not here; a stream's may be patterns.

    Raises:
        ValueError: If no data are named, or the run would write among its images.
        FileNotFoundError: If a path does not exist.
    """
    if config.train_data_dir is None and config.dataset_name is None:
        raise ValueError("give train_data_dir or dataset_name, got neither")
    paths = {"validation_data_dir": config.validation_data_dir}
    if not config.streaming:
        paths["train_data_dir"] = config.train_data_dir
    for name, path in paths.items():
        if path is not None:
            check_exists(name, path, "; data sets of the Hub go into dataset_name")
            _refuse_shards(name, path)
            _refuse_as_output(name, path, config.output_dir)
    if config.streaming and config.train_data_dir is not None:
        _refuse_whole_files(config.train_data_dir)
        _refuse_as_output("train_data_dir", config.train_data_dir, config.output_dir)


def _refuse_as_output(option: str, source: str, output_dir: str) -> None:
    """Refuse to write sample grids to where the next start would read them as images.

    Raises:
        ValueError: If both are one folder, or output_dir is somewhere in a folder of images.
    """
    folder, output = Path(source).expanduser(), Path(output_dir).expanduser().resolve()
    if not folder.is_dir() or not output.is_relative_to(folder.resolve()):
        return
    same = output == folder.resolve()
    if same or data_kind(folder) in {"images", "nothing"}:
        raise ValueError(
            f"output_dir={output_dir!r} is {'' if same else 'in '}the folder of the images, "
            f"{option}={source!r}, where its sample grids would count as images; choose another "
            "folder"
        )


def check_splits(config: TrainingConfig) -> None:
    """Look for the images of each split, as far as they are here and their names tell.

    Raises:
        ValueError: If there are none, there is no such split, or it is not clear which to read.
        FileNotFoundError: If shards are missing.
    """
    train, held_out = config.train_data_dir, config.validation_data_dir
    looks = [("train_data_dir", "train_split", train, config.train_split)]
    if config.validation_split is not None:
        looks += [("train_data_dir", "validation_split", train, config.validation_split)]
    looks += [("validation_data_dir", "validation_split", held_out, None)]
    for option, named, source, split in looks:
        if source is not None:
            from ddpm_pipeline.data import check_source  # which needs NumPy and Pillow

            with naming_options(option, named):
                check_source(source, split)


def _refuse_whole_files(path: str) -> None:
    """Refuse to stream a file that is no shard.

    Raises:
        ValueError: If it is one.
    """
    file = Path(path).expanduser()
    if file.is_file() and file.suffix.lower() not in {".tar", ".parquet"}:
        raise ValueError(
            f"train_data_dir={path!r} is neither .tar nor .parquet shards, which are what "
            "streaming=True reads; leave it out"
        )


def _refuse_shards(option: str, source: str) -> None:
    """Refuse .tar shards, which are only streamed.

    Raises:
        ValueError: If it is one, or a folder of them.
    """
    if not is_shards(source):
        return
    if option == "validation_data_dir":
        remedy = "held-out images must be files, arrays or a data set"
    else:
        remedy = "give streaming=True and max_train_steps to read them as they go"
    raise ValueError(f"{option}={source!r} holds .tar shards; {remedy}")


def check_start(config: TrainingConfig) -> None:
    """Refuse a run that could not begin, as far as that needs neither its data nor its weights.

    Raises:
        FileNotFoundError: If there is no such checkpoint, or no such config of a UNet.
        FileExistsError: If output_dir holds another run, and there is nothing to go on from.
        OSError: If output_dir cannot be a folder.
    """
    check_output_folder("output_dir", Path(config.output_dir).expanduser())
    given = config.model_config_name_or_path
    if given is not None and not is_repo_id(given):
        check_exists("model_config_name_or_path", given)
    _check_pretrained(config)
    resume, folder = config.resume_from_checkpoint, Path(config.output_dir).expanduser()
    if parse_hub_checkpoint(resume, config.hub_model_id) is not None:
        return
    if resume not in {"latest", "none"}:
        check_given_checkpoint(resume)
    elif not config.overwrite_output_dir and (folder / "model_index.json").exists():
        checkpoints = sorted(path.name for path in folder.glob("checkpoints/step-*"))
        if resume == "none" or not checkpoints:
            refuse_used_folder(folder, ["model_index.json", *checkpoints])


def _check_pretrained(config: TrainingConfig) -> None:
    """Refuse a pretrained model that is nowhere, unless the run has a checkpoint to go on from.

    Raises:
        FileNotFoundError: If it is none of the Hub either, by its name.
        ValueError: If the run would begin by deleting it.
    """
    _refuse_deleted(config)
    name = config.pretrained_model_name_or_path
    if name is None or is_repo_id(name) or has_checkpoint(config):
        return
    check_exists("pretrained_model_name_or_path", name)


def _refuse_deleted(config: TrainingConfig) -> None:
    """Refuse to begin a run by deleting a model that it needs.

    Raises:
        ValueError: If overwrite_output_dir would.
    """
    folder = Path(config.output_dir).expanduser().resolve()
    for option in ("pretrained_model_name_or_path", "preview_guidance_model"):
        name = getattr(config, option)
        if not config.overwrite_output_dir or name is None:
            continue
        path = Path(name).expanduser()
        if path.exists() and path.resolve().is_relative_to(folder):
            raise ValueError(
                f"{option}={name!r} is in output_dir={config.output_dir!r}, which "
                "overwrite_output_dir would delete; choose another output_dir"
            )


def has_checkpoint(config: TrainingConfig) -> bool:
    """Tell whether a run will go on from a checkpoint, which has all that it needs of a model."""
    if config.overwrite_output_dir or config.resume_from_checkpoint == "none":
        return False
    if config.resume_from_checkpoint != "latest":
        return True
    folder = Path(config.output_dir).expanduser()
    return any(folder.glob("checkpoints/step-*"))


def check_given_checkpoint(folder: str) -> None:
    """Refuse a checkpoint that is not here.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not Path(folder).expanduser().is_dir():
        raise FileNotFoundError(f"resume_from_checkpoint: there is no folder {folder!r}")
    if not (Path(folder) / "manifest.json").is_file():
        raise ValueError(f"resume_from_checkpoint: {folder!r} is no checkpoint: no manifest.json")


def refuse_used_folder(folder: Path, in_the_way: Sequence[str]) -> None:
    """Refuse to begin a run where another one is.

    Arguments:
        folder: The output_dir.
        in_the_way: Files and folders of the other run.
    Raises:
        FileExistsError: In any case.
    """
    raise FileExistsError(
        f"output_dir {str(folder)!r} holds another run ({', '.join(in_the_way)}); choose "
        "another folder (overwrite_output_dir would delete that run and its weights)"
    )
