"""Fetching the checkpoint of a run from the Hub, so that it goes on on another machine.

    repository/  checkpoint/    the files of a checkpoint, as in checkpoints/step-0000500/

All files are of one commit. They are downloaded beside the checkpoints of the run's folder and
compared with their manifest.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path, PurePath
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from ddpm_pipeline.hub import REQUEST_TIMEOUT, HubCheckpoint, HubError, explained, time_limit
from ddpm_pipeline.training.storage.checkpoints import check_whole, newest_checkpoint, read_state
from ddpm_pipeline.training.storage.manifests import MANIFEST_NAME, STATE_NAME, read_manifest

__all__ = ["CHECKPOINT_FOLDER", "discard_download", "fetch_checkpoint", "read_hub_state"]

logger = logging.getLogger(__name__)


CHECKPOINT_FOLDER = "checkpoint"
_ASIDE = ".aside.hub"
_SUFFIXES = {".safetensors", ".json", ".jsonl"}


def fetch_checkpoint(source: HubCheckpoint, folder: Path) -> Path | None:
    """Find the checkpoint to go on from, and download it where it is the Hub's.

    From another run's repository it is the Hub's checkpoint. From the run's own repository it is
    the newer of two, the Hub's and the newest in the folder; the folder's where the Hub's cannot
    be loaded or is damaged.

    Arguments:
        source: Where the Hub's checkpoint is.
        folder: Of the run's checkpoints; the Hub's is downloaded into it.
    Returns:
        The folder of a whole checkpoint; None if the run's own repository and the folder hold
        none.
    Raises:
        HubError: If the Hub's checkpoint cannot be loaded, and there is no other.
        ValueError: If it is missing or damaged, and there is no other.
    """
    local = _newest_here(folder) if source.is_own else None
    explaining = explained("load a checkpoint from", source.repo_id, revision=source.revision)
    try:
        with time_limit(REQUEST_TIMEOUT), explaining:
            return _fetch(source, folder, local) or local
    except (HubError, ValueError) as error:
        if local is None:
            raise
        logger.warning("%s; going on from the newest checkpoint here", error)
        return local


def read_hub_state(source: HubCheckpoint, folder: Path) -> dict[str, Any] | None:
    """Read the state of the Hub's checkpoint alone; None if there is none, or it cannot be read.

    Arguments:
        source: Where it is.
        folder: Of the run's checkpoints, into which it is downloaded for a moment.
    """
    explaining = explained("load a checkpoint from", source.repo_id, revision=source.revision)
    try:
        with time_limit(REQUEST_TIMEOUT), explaining:
            commit = HfApi().model_info(source.repo_id, revision=source.revision).sha
            return read_state(_download(source, commit, STATE_NAME, folder).parent)
    except (OSError, ValueError, EntryNotFoundError) as error:
        logger.warning("%s", error)
        return None
    finally:
        discard_download(folder)


def discard_download(folder: Path) -> None:
    """Delete what ``fetch_checkpoint`` left in a folder of checkpoints."""
    shutil.rmtree(folder / _ASIDE, ignore_errors=True)


def _newest_here(folder: Path) -> Path | None:
    """Find the newest whole checkpoint of a folder; damaged ones are named and passed over."""
    try:
        return newest_checkpoint(folder)
    except ValueError as error:
        logger.warning("%s; looking on the Hub", error)
        return None


def _fetch(source: HubCheckpoint, folder: Path, local: Path | None) -> Path | None:
    """Download the Hub's checkpoint; give None if there is none, or the local one is as new."""
    try:
        commit = HfApi().model_info(source.repo_id, revision=source.revision).sha
        state = _download(source, commit, STATE_NAME, folder)
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        if source.is_own and error.response.status_code == 404:  # 401 may be a private one
            logger.info("there is no checkpoint in %r on the Hub yet", source.repo_id)
            return None
        if isinstance(error, EntryNotFoundError):
            raise ValueError(f"{source.repo_id!r} on the Hub holds no checkpoint") from None
        raise
    if local is not None and read_state(local)["step"] >= read_state(state.parent)["step"]:
        return None
    _download(source, commit, MANIFEST_NAME, folder)
    for name in read_manifest(state.parent):
        if PurePath(name).suffix not in _SUFFIXES:
            raise ValueError(
                f"the checkpoint in {source.repo_id!r} names a foreign file, {name!r}"
            )
        _download(source, commit, name, folder)
    check_whole(state.parent)
    return state.parent


def _download(source: HubCheckpoint, commit: str, name: str, folder: Path) -> Path:
    """Download a file of the Hub's checkpoint."""
    file = f"{CHECKPOINT_FOLDER}/{name}"
    return Path(hf_hub_download(source.repo_id, file, revision=commit, local_dir=folder / _ASIDE))
