"""Pushing to the Hub beside training, which neither waits for it nor fails with it.

    pusher = BackgroundPush(folder, repo_id)
    pusher.submit(step)             # at a save: returns at once
    error = pusher.finish(600.0)    # at the end: None if the last state arrived

A thread pushes one state after another. Of those that come while it is busy the newest waits, and
takes the place of one that waited before. What is pushed is a snapshot: weights, which are only
ever replaced and never written into, are linked, and all other files are copied. A push that
failed is logged in one line; the next state is pushed as if nothing had been.

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
    """A state of a run that nothing changes any more."""

    folder: Path
    files: list[str]
    step: int


def begin_with_hub(
    folder: RunFolder, identity: RunIdentity, source: HubCheckpoint | None
) -> tuple[Path | None, BackgroundPush | None]:
    """Make a run's folder ready where the Hub has a part in it.

    Arguments:
        folder: Of the run.
        identity: Of the run; its config says whether to push.
        source: Where the checkpoint to go on from is on the Hub; None if it is not there.
    Returns:
        The checkpoint to go on from, if any, and what pushes the folder, if it is to be.
    Raises:
        ValueError: If pushing cannot work, the checkpoint is not as it must be, or as
            ``RunFolder.begin``.
        FileExistsError: As ``RunFolder.begin``.
        HubError: If the checkpoint cannot be had.
    """
    config = identity.config
    if config.push_to_hub:
        check_access()
    fetched = None if source is None else fetch_checkpoint(source, folder.checkpoints)
    try:
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
    """ValueError if nothing can be pushed from here: there is no token, or no Hub."""
    if constants.HF_HUB_OFFLINE:
        raise ValueError("push_to_hub needs the network, and HF_HUB_OFFLINE is set")
    if get_token() is None:
        raise ValueError("push_to_hub needs a token: log in with `hf auth login`, or set HF_TOKEN")


class BackgroundPush:
    """Pushes the newest state of a folder, in a thread.

    Arguments:
        folder: A saved model; snapshots are kept in a hidden folder of it.
        repo_id: Where to.
        private: Of a repository that is made.
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
        disable_progress_bars()  # they would be drawn into training's own
        self._changed = threading.Condition()
        self._waiting: _Snapshot | None = None
        self._is_busy, self._is_over, self._count = True, False, 0
        self._error: str | None = None
        threading.Thread(target=self._work, name="push", daemon=True).start()

    def submit(self, step: int, checkpoint: Path | None = None) -> None:
        """Have the folder's present state pushed; an earlier one that still waits is not.

        Arguments:
            step: What the state is called.
            checkpoint: Folder of a checkpoint that goes along.
        """
        self._count += 1
        target = self._snapshots / f"{self._count}"
        try:
            snapshot = _Snapshot(target, _take(self._folder, target, checkpoint), step)
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
        """Wait for the last state to be pushed, after which there are no more.

        Arguments:
            timeout: Seconds to wait.
        Returns:
            Why it was not; None if it was.
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
        self._try_out()
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

    def _try_out(self) -> None:
        """Warn at the beginning rather than at the end of a token that is not valid."""
        try:
            with explained("push to", self._repo_id), time_limit(self._timeout):
                HfApi().whoami()
        except Exception as error:  # noqa: BLE001 (training goes on whatever it is)
            logger.warning("pushing will fail unless this changes: %s", _line(error))

    def _push(self, snapshot: _Snapshot) -> None:
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
        self._error = _line(error)
        logger.warning("step %d was not pushed, the next save will be: %s", step, self._error)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _card(folder: Path, present: PresentCard) -> str:
    """The card; one that somebody left unreadable stays as it is, and stops no push."""
    is_own_newer = present.is_ours and (folder / "README.md").is_file()
    existing = None if is_own_newer else present.text
    try:
        return renew_card(folder, repo_id=present.repo_id, existing=existing)
    except ValueError as error:
        if present.text is None:
            raise
        logger.warning("the card is left as it is: %s", _line(error))
        return present.text


def _take(folder: Path, target: Path, checkpoint: Path | None) -> list[str]:
    """Put what is to be pushed into a new folder; the paths in it."""
    sources = {file: folder / file for file in model_files(folder)}
    if checkpoint is not None:
        sources |= {f"{CHECKPOINT_FOLDER}/{p.name}": p for p in checkpoint.iterdir()}
    for file, source in sources.items():
        path = target / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == _WEIGHTS:
            _link(source, path)
        else:
            shutil.copyfile(source, path)
    return sorted(sources)


def _link(source: Path, path: Path) -> None:
    try:
        os.link(source, path)
    except OSError:  # a file system without links
        shutil.copyfile(source, path)
