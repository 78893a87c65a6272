"""Pushing to the Hub beside training, which neither waits for it nor fails with it.

    pusher = BackgroundPush(folder, repo_id)
    pusher.submit(step)             # at a save: returns at once
    error = pusher.finish(600.0)    # at the end: None if the last state arrived

A thread pushes one state of the folder after another. Of the states that come while it is busy,
the newest waits, and an older one that waited is dropped. What is pushed is a snapshot: weights,
which are only ever replaced and never written into, are linked, and all other files are copied. A
push that fails is logged in one line, and the next state is pushed all the same.

Every push is one commit, with the newest checkpoint in ``checkpoint/`` if that is asked for.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.utils import disable_progress_bars

from ddpm_pipeline.cards import renew_card
from ddpm_pipeline.common import write_aside
from ddpm_pipeline.hub import (
    REQUEST_TIMEOUT,
    PresentCard,
    explained,
    model_files,
    push_folder,
    time_limit,
)
from ddpm_pipeline.training.storage.hub_checkpoint import (
    CHECKPOINT_FOLDER,
    discard_download,
    fetch_checkpoint,
)

if TYPE_CHECKING:
    from ddpm_pipeline.hub import HubCheckpoint
    from ddpm_pipeline.training.storage.folder import RunFolder
    from ddpm_pipeline.training.storage.identity import RunIdentity

__all__ = ["BackgroundPush", "begin_with_hub", "check_access"]

logger = logging.getLogger(__name__)


_SNAPSHOTS = ".push"
_WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class _Snapshot:
    """A copy of a run's files at one step, which nothing changes any more."""

    folder: Path
    files: list[str]
    step: int


def begin_with_hub(
    folder: RunFolder, identity: RunIdentity, source: HubCheckpoint | None
) -> tuple[Path | None, BackgroundPush | None]:
    """Make a run's folder ready if the run pushes to the Hub, or goes on from there.

    Arguments:
        folder: Of the run.
        identity: Of the run; its config says whether to push.
        source: Where the Hub holds the checkpoint to go on from; None if the folder holds it.
    Returns:
        The checkpoint to go on from, or None; and the ``BackgroundPush`` of the folder, or None
        if the config does not ask for pushing.
    Raises:
        ValueError: If there is no token or no network to push with, if the Hub's checkpoint is
            missing or damaged, or as ``RunFolder.begin``.
        FileExistsError: As ``RunFolder.begin``.
        HubError: If the Hub's checkpoint cannot be loaded.
    """
    config = identity.config
    if config.push_to_hub:
        check_access()
    try:
        fetched = None if source is None else fetch_checkpoint(source, folder.checkpoints)
        checkpoint = folder.begin(identity, fetched)
    finally:
        discard_download(folder.checkpoints)
    if not config.push_to_hub:
        return checkpoint, None
    silence = min(REQUEST_TIMEOUT, config.hub_timeout)
    private = config.hub_private or None
    push = BackgroundPush(folder.path, config.hub_model_id, private=private, timeout=silence)
    return checkpoint, push


def check_access() -> None:
    """Raise ValueError if nothing can be pushed from here: there is no token, or no network."""
    if constants.HF_HUB_OFFLINE:
        raise ValueError("push_to_hub needs the network, and HF_HUB_OFFLINE is set")
    if get_token() is None:
        raise ValueError("push_to_hub needs a token: log in with `hf auth login`, or set HF_TOKEN")


class BackgroundPush:
    """A thread that pushes the newest state of a folder.

    Arguments:
        folder: Of a saved model; snapshots are kept in a hidden folder of it.
        repo_id: The repository.
        private: Whether the repository is a private one, if it has to be made; None is as the
            Hub's account says.
        timeout: Seconds of silence after which a request is given up.
    """

    def __init__(
        self,
        folder: Path,
        repo_id: str,
        *,
        private: bool | None = None,
        timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        self._folder, self._repo_id = folder, repo_id
        self._private, self._timeout = private, timeout
        self._snapshots = folder / _SNAPSHOTS
        shutil.rmtree(self._snapshots, ignore_errors=True)
        disable_progress_bars()  # they would be drawn across training's progress bar
        self._changed = threading.Condition()
        self._waiting: _Snapshot | None = None
        self._is_busy, self._is_over, self._count = True, False, 0
        self._error: str | None = None
        threading.Thread(target=self._work, name="push", daemon=True).start()

    def submit(self, step: int, checkpoint: Path | None = None) -> None:
        """Have the present state of the folder pushed, in place of one that still waits.

        Arguments:
            step: Updates made, which the commit and the log name.
            checkpoint: Folder of a checkpoint to push along with it.
        """
        self._count += 1
        target = self._snapshots / f"{self._count}"
        try:
            snapshot = _Snapshot(target, _snapshot_files(self._folder, target, checkpoint), step)
        except OSError as error:
            shutil.rmtree(target, ignore_errors=True)
            self._failed(step, error)
            return
        with self._changed:
            replaced, self._waiting = self._waiting, snapshot
            self._changed.notify_all()
        if replaced is not None:
            shutil.rmtree(replaced.folder, ignore_errors=True)

    def finish(self, timeout: float) -> str | None:
        """Wait until the last state is pushed, and push no more.

        Arguments:
            timeout: Seconds to wait.
        Returns:
            Why the last state was not pushed; None if it was.
        """
        with self._changed:
            is_done = self._changed.wait_for(
                lambda: self._waiting is None and not self._is_busy, timeout
            )
            self._is_over = True
            self._changed.notify_all()
        if not is_done:
            return f"it was not done after {timeout:g} s"
        shutil.rmtree(self._snapshots, ignore_errors=True)
        return self._error

    def _work(self) -> None:
        """Push what waits, one snapshot after another, until there is no more to come."""
        self._try_token()
        while True:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting is not None or self._is_over)
                if self._waiting is None:
                    return
                snapshot, self._waiting, self._is_busy = self._waiting, None, True
            self._push(snapshot)
            shutil.rmtree(snapshot.folder, ignore_errors=True)

    def _try_token(self) -> None:
        """Warn of a token that is not valid at the beginning, rather than at the end."""
        try:
            with explained("push to", self._repo_id), time_limit(self._timeout):
                HfApi().whoami()
        except Exception as error:  # noqa: BLE001 (training goes on whatever it is)
            logger.warning("pushing will fail unless this changes: %s", _line(error))

    def _push(self, snapshot: _Snapshot) -> None:
        """Push a snapshot, and remember the error if that fails."""
        began = time.monotonic()
        try:
            result = push_folder(
                snapshot.folder,
                self._repo_id,
                files=snapshot.files,
                private=self._private,
                commit_message=f"Training step {snapshot.step}",
                timeout=self._timeout,
                card=partial(_card, snapshot.folder),
            )
        except Exception as error:  # noqa: BLE001 (training goes on whatever it is)
            self._failed(snapshot.step, error)
            return
        self._error = None
        seconds = time.monotonic() - began
        logger.info("step %d was pushed in %.0f s: %s", snapshot.step, seconds, result.url)

    def _failed(self, step: int, error: Exception) -> None:
        """Remember why a state was not pushed, and log it while there is a next one to come."""
        with self._changed:
            self._error = _line(error)
            if not self._is_over:
                logger.warning(
                    "step %d was not pushed, the next save will be: %s", step, self._error
                )


def _line(error: Exception) -> str:
    """Say an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _card(folder: Path, present: PresentCard) -> str:
    """Renew the card; leave one that cannot be read as it is, so that it stops no push."""
    ours_is_newer = present.is_ours and (folder / "README.md").is_file()
    existing = None if ours_is_newer else present.text
    try:
        return renew_card(folder, repo_id=present.repo_id, existing=existing)
    except ValueError as error:
        if present.text is None:
            raise
        logger.warning("the card is left as it is: %s", _line(error))
        return present.text


def _snapshot_files(folder: Path, target: Path, checkpoint: Path | None) -> list[str]:
    """Put all that is pushed into a new folder, and list the paths in it."""
    sources = {file: folder / file for file in model_files(folder)}
    if checkpoint is not None:
        sources |= {f"{CHECKPOINT_FOLDER}/{p.name}": p for p in checkpoint.iterdir()}
    for file, source in sources.items():
        path = target / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == _WEIGHTS:
            _link(source, path)
        else:
            _copy(source, path)
    return sorted(sources)


def _link(source: Path, path: Path) -> None:
    """Link a file, or copy it on a file system without links."""
    try:
        os.link(source, path)
    except OSError:
        _copy(source, path)


def _copy(source: Path, path: Path) -> None:
    """Copy a file. Nothing reads a snapshot after a crash, so it need not be on the disk."""
    with source.open("rb") as content, write_aside(path, sync=False) as file:
        shutil.copyfileobj(content, file)
