"""Saving a run: its model, its checkpoints, its pushes; and going on from a checkpoint.

    step, metrics = saver.begin()       the folder is ready, all parts are as the checkpoint says
    saver.save_model(step)
    saver.save_checkpoint(step)
    saver.submit_push(step)             returns at once
    error = saver.finish_push()

Every process calls these, and the main process alone writes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate.utils import gather_object
from diffusers import UNet2DModel

from ddpm_pipeline.common import on_main
from ddpm_pipeline.hub import parse_hub_checkpoint
from ddpm_pipeline.networks import OwnNetwork, facts_of
from ddpm_pipeline.pipelines import DDPMPipeline
from ddpm_pipeline.training.callbacks import Callbacks
from ddpm_pipeline.training.storage.checkpoints import (
    Checkpoint,
    checkpoint_path,
    read_checkpoint,
    write_checkpoint,
)
from ddpm_pipeline.training.storage.export import network_of
from ddpm_pipeline.training.storage.longer import BEFORE_COOLDOWN
from ddpm_pipeline.training.storage.manifests import STATE_NAME, damage_named
from ddpm_pipeline.training.storage.record import training_record
from ddpm_pipeline.training.storage.snapshots import snapshot_path, write_snapshot
from ddpm_pipeline.training.storage.writer import CheckpointWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from torch import Tensor

    from ddpm_pipeline.data import KnownImages, Prefetcher
    from ddpm_pipeline.schedulers import DDPMScheduler
    from ddpm_pipeline.training.learner import Learner
    from ddpm_pipeline.training.monitor import Monitor
    from ddpm_pipeline.training.storage.folder import RunFolder
    from ddpm_pipeline.training.storage.identity import RunIdentity
    from ddpm_pipeline.training.storage.push import BackgroundPush

__all__ = ["RunSaver"]


_NONE = Callbacks()


class RunSaver:
    """Saves and restores the parts of a run.

    Arguments:
        identity: Of the run; holds its config.
        folder: Of the run, which it has locked.
        scheduler: Saved with the model.
        learner: Its weights, optimiser and averages.
        batches: Its place in the data.
        monitor: Its losses and its best average, which is what becomes the model.
        num_images: Training images; None for a stream.
        known_images: Hashes the images of the run, which is done once, at the first saving.
        callbacks: Are told of every saving.
        start: What a checkpoint holds of what the run started from.
    """

    def __init__(
        self,
        identity: RunIdentity,
        folder: RunFolder,
        scheduler: DDPMScheduler,
        learner: Learner,
        batches: Prefetcher,
        monitor: Monitor,
        *,
        num_images: int | None,
        known_images: Callable[[], KnownImages | None] = lambda: None,
        callbacks: Callbacks = _NONE,
        start: dict[str, Any] | None = None,
    ) -> None:
        self._start = start or {}
        self._known_images: Callable[[], KnownImages | None] | None = known_images
        self._callbacks = callbacks
        self._config, self._identity, self._folder = identity.config, identity, folder
        self._scheduler, self._learner = scheduler, learner
        self._batches, self._monitor = batches, monitor
        self._num_images = num_images
        self._accelerator = learner.accelerator
        self._began, self._earlier_seconds = time.perf_counter(), 0.0
        self._first_checkpoint: Path | None = None
        self._first_step, self._saved_step = 0, -1
        self.chosen_threads: int | None = None  # fewer than all, by a trial before the run
        self._writer = CheckpointWriter(learner.device)
        self._push: BackgroundPush | None = None  # on the main process, if the config asks for it

    # The beginning.

    def begin(self) -> tuple[int, bytes]:
        """Make the folder ready, and go on from its checkpoint if there is one.

        Returns:
            Updates made, and what metrics.jsonl held then.
        Raises:
            ValueError, FileExistsError, HubError: As ``RunFolder.begin`` and ``begin_with_hub``.
        """
        self._first_checkpoint = on_main(self._open_folder, self._accelerator)
        if self._first_checkpoint is None:
            return 0, b""
        checkpoint = read_checkpoint(self._first_checkpoint)
        with damage_named(self._first_checkpoint, STATE_NAME):
            self._restore(checkpoint)
            return checkpoint.step, checkpoint.files[self._folder.metrics.name]

    def _open_folder(self) -> Path | None:
        """Make the folder ready, and pushing where it is asked for; find the checkpoint."""
        config = self._config
        source = parse_hub_checkpoint(config.resume_from_checkpoint, config.hub_model_id)
        if source is None and not config.push_to_hub:
            return self._folder.begin(self._identity)
        from ddpm_pipeline.training.storage.push import begin_with_hub

        checkpoint, self._push = begin_with_hub(self._folder, self._identity, source)
        return checkpoint

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Give every part of the run what it was at the checkpoint."""
        state = checkpoint.state
        mine = state["processes"][self._accelerator.process_index]
        self._learner.load(checkpoint.tensors, checkpoint.step)
        self._learner.scaler.load_state_dict(state["scaler"])
        self._batches.load_state_dict(mine["loader"])
        self._monitor.load(state, mine["losses"], checkpoint.tensors)
        self.chosen_threads = state.get("num_threads")
        self._earlier_seconds = state.get("seconds", 0.0)
        self._first_step = self._saved_step = checkpoint.step

    def _seconds(self) -> float:
        """Sum the time that the run took so far, in all its parts."""
        return self._earlier_seconds + time.perf_counter() - self._began

    # Checkpoints.

    def save_checkpoint(self, step: int) -> None:
        """Write a checkpoint, unless the newest one is of this step.

        Raises:
            FloatingPointError: If a loss is not finite, which must not reach a checkpoint.
            OSError: If it cannot be written; earlier checkpoints are as they were.
        """
        if self._saved_step == step:
            return
        limit = self._config.checkpoints_total_limit
        self._write_state(step, self._folder.checkpoints, limit=limit)
        self._saved_step = step

    def keep_checkpoint(self, step: int) -> None:
        """Write a checkpoint beside the others, from which a longer run can go on.

        Raises:
            FloatingPointError, OSError: As ``save_checkpoint``.
        """
        self._write_state(step, self._folder.path / BEFORE_COOLDOWN, limit=1)

    def _write_state(self, step: int, folder: Path, *, limit: int | None) -> None:
        """Collect what all processes know, and have the main one write it."""
        self._monitor.check_losses(step)
        place = {"loader": self._batches.state_dict(), "losses": self._monitor.unread_losses()}
        processes = gather_object([place])
        on_main(self._writer.finish, self._accelerator)
        tensors = self._learner.state(copied=self._writer.behind)
        tensors |= self._monitor.keeper.tensors(copied=self._writer.behind)

        def write() -> None:
            checkpoint = self._checkpoint(step, processes, tensors)
            self._folder.written.note_checkpoint(checkpoint_path(folder, step))
            self._writer.submit(
                lambda: write_checkpoint(folder, checkpoint, limit=limit),
                lambda path: self._callbacks.saved(step, path),
            )

        on_main(write, self._accelerator)

    def check_writing(self) -> None:
        """Raise what went wrong with a checkpoint that is written beside the updates.

        Of several processes, all raise it when the next one is due.
        """
        if self._accelerator.num_processes == 1:
            self._writer.check()

    def finish_writing(self) -> None:
        """Wait for the last checkpoint, which any earlier one came before.

        Raises:
            OSError: If it could not be written; earlier checkpoints are as they were.
        """
        on_main(self._writer.finish, self._accelerator)

    def close(self) -> None:
        """Let no thread write after this."""
        self._writer.close()

    def _checkpoint(
        self, step: int, processes: list[dict[str, Any]], tensors: dict[str, dict[str, Tensor]]
    ) -> Checkpoint:
        """Put together what a run goes on from; on the main process."""
        state = {
            "identity": self._identity.to_dict(),
            "processes": processes,
            "scaler": self._learner.scaler.state_dict(),
            "unet": {k: v for k, v in self._learner.unet.config.items() if k != "_name_or_path"},
            **self._start,
            **self._monitor.state(),
            "seconds": self._seconds(),
            "num_threads": self.chosen_threads,
        }
        files = {self._folder.metrics.name: self._folder.metrics.read_bytes()}
        return Checkpoint(step, tensors, state, files)

    # Averages.

    def save_snapshot(self, step: int) -> None:
        """Write the power-function averages down, from which others are made later.

        Raises:
            OSError: If they cannot be written; earlier ones are as they were.
        """
        learner, kept = self._learner, self._learner.averages.post_hoc
        averages = {s: learner.state_with(kept.state(s)) for s in kept.sigma_rels}

        def write() -> None:
            path = snapshot_path(self._folder.snapshots, step)
            self._folder.written.note(path)
            write_snapshot(path, step, averages, learner.unet.config)

        on_main(write, self._accelerator)

    # The model.

    def save_model(self, step: int) -> None:
        """Save the pipeline with the best average's weights, and the record of its training.

        They are those of now, or the best that were measured where these are to be kept.
        """
        weights = self._monitor.keeper.weights()
        if not self._monitor.keeper.has_weights:
            weights = self._learner.weights(self._monitor.best_decay)
        on_main(lambda: self._write_model(step, weights), self._accelerator)

    def _write_model(self, step: int, weights: dict[str, Tensor]) -> None:
        record = training_record(
            self._config,
            self._accelerator,
            steps=step,
            seconds=self._seconds(),
            num_images=self._num_images,
            facts=facts_of(self._learner.unet),
            measured=self._monitor.measured,
            base=self._start.get("start", {}).get("base"),
        )
        unet = self._learner.unet
        if isinstance(unet, OwnNetwork):
            self._folder.save_network(weights, self._scheduler, record)
        else:
            # Of a sharded UNet the type is another one.
            kind = UNet2DModel if isinstance(unet, UNet2DModel) else type(unet)
            network = network_of(unet.config, weights, kind)
            self._folder.save_model(DDPMPipeline(network, self._scheduler), record)
        if self._known_images is not None:
            known = self._known_images()
            if known is not None:
                known.save(self._folder.images)
            self._known_images = None
        self._callbacks.saved(step, self._folder.path)

    def has_saved_model(self, step: int) -> bool:
        """Tell whether the folder holds the model of a run that has made no update since."""
        if step != self._first_step:
            return False
        return on_main(
            lambda: self._folder.holds_model_of(self._first_checkpoint, step), self._accelerator
        )

    # Pushes.

    def pushes_with(self, strategy: str) -> bool:
        """Tell whether the run pushes, by this hub_strategy."""
        return self._config.push_to_hub and self._config.hub_strategy == strategy

    def submit_push(self, step: int) -> None:
        """Have the saved model pushed, with the newest checkpoint where the strategy is that."""
        if self._push is not None:
            self._writer.finish()
            newest = checkpoint_path(self._folder.checkpoints, self._saved_step)
            self._push.submit(step, newest if self.pushes_with("checkpoint") else None)

    def finish_push(self) -> str | None:
        """Wait for the last push; say why it did not arrive, None if it did or none was asked."""
        return None if self._push is None else self._push.finish(self._config.hub_timeout)
