"""A run's checkpoint on the Hub, to go on from on another machine.

    repository/  checkpoint/    the files of a checkpoint, as in checkpoints/step-0000500/

It is downloaded beside the run's own checkpoints, all of one commit, and compared with its
manifest.
"""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import AbstractContextManager
from pathlib import Path, PurePath

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from ddpm_pipeline.hub import REQUEST_TIMEOUT, HubCheckpoint, HubError, explained, time_limit
from ddpm_pipeline.training.storage.checkpoints import (
    MANIFEST_NAME,
    STATE_NAME,
    check_whole,
    newest_checkpoint,
    read_state,
)

__all__ = ["CHECKPOINT_FOLDER", "discard_download", "fetch_checkpoint"]

logger = logging.getLogger(__name__)


CHECKPOINT_FOLDER = "checkpoint"
_ASIDE = ".aside.hub"
_SUFFIXES = {".safetensors", ".json", ".jsonl"}


def fetch_checkpoint(source: HubCheckpoint, folder: Path) -> Path | None:
    """The checkpoint to go on from: the Hub's, or of a run's own ones the newer.

    If the run's own repository cannot be reached, or is damaged, it is the newest in the folder.

    Arguments:
        source: Where it is on the Hub.
        folder: Of the run's checkpoints, where the Hub's is downloaded to.
    Returns:
        The folder of a whole checkpoint; None if it is the run's own, and there is none anywhere.
    Raises:
        HubError: If the Hub's cannot be had.
        ValueError: If the Hub's is not there, or damaged.
    """
    local = _newest(folder) if source.is_own else None
    try:
        with time_limit(REQUEST_TIMEOUT), _explained(source):
            return _fetch(source, folder, local) or local
    except (HubError, ValueError) as error:
        if local is None:
            raise
        logger.warning("%s; going on from the newest checkpoint here", error)
        return local


def discard_download(folder: Path) -> None:
    """Delete what ``fetch_checkpoint`` left in a folder of checkpoints."""
    shutil.rmtree(folder / _ASIDE, ignore_errors=True)


def _explained(source: HubCheckpoint) -> AbstractContextManager[None]:
    return explained("load a checkpoint from", source.repo_id, revision=source.revision)


def _newest(folder: Path) -> Path | None:
    try:
        return newest_checkpoint(folder)
    except ValueError as error:
        logger.warning("%s; looking on the Hub", error)
        return None


def _fetch(source: HubCheckpoint, folder: Path, local: Path | None) -> Path | None:
    """The Hub's checkpoint; None if there is none, or the local one is as new."""
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
    manifest = _download(source, commit, MANIFEST_NAME, folder)
    for name in json.loads(manifest.read_bytes()):
        if PurePath(name).name != name or PurePath(name).suffix not in _SUFFIXES:
            raise ValueError(
                f"the checkpoint in {source.repo_id!r} names a foreign file, {name!r}"
            )
        _download(source, commit, name, folder)
    check_whole(state.parent)
    return state.parent


def _download(source: HubCheckpoint, commit: str, name: str, folder: Path) -> Path:
    file = f"{CHECKPOINT_FOLDER}/{name}"
    return Path(hf_hub_download(source.repo_id, file, revision=commit, local_dir=folder / _ASIDE))
