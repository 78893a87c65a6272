"""The course of a run: it begins, makes update after update, is stopped or ends.

    result = Trainer(config, accelerator, data).run()

A run that was killed at any moment goes on when the same call is made again, and ends with the
same bits as one that was not. Everything random in update i follows from (seed, i, micro-step,
process), and the learning rate and the order of the data follow from i; the weights, the
optimiser and the averages are in the checkpoints, which are whole or absent.

``Learner`` makes an update, ``Monitor`` measures and shows, ``RunSaver`` saves and restores. The
trainer says when.
"""

from __future__ import annotations

import logging
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

from ddpm_pipeline.common import on_main
from ddpm_pipeline.data import batches_on
from ddpm_pipeline.training.callbacks import Callbacks
from ddpm_pipeline.training.few_images import is_chosen
from ddpm_pipeline.training.learner import Learner
from ddpm_pipeline.training.monitor import Monitor
from ddpm_pipeline.training.optimizers import steps_before_cooldown
from ddpm_pipeline.training.rehearsal import try_threads
from ddpm_pipeline.training.setup import clamped_as_trained
from ddpm_pipeline.training.start import Start
from ddpm_pipeline.training.stopping import ASKED, StopSignals
from ddpm_pipeline.training.storage.folder import RunFolder
from ddpm_pipeline.training.storage.identity import RunIdentity
from ddpm_pipeline.training.storage.saving import RunSaver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from accelerate import Accelerator

    from ddpm_pipeline.data import Batch
    from ddpm_pipeline.training.config import TrainingConfig
    from ddpm_pipeline.training.data import TrainingData

__all__ = ["Trainer", "TrainingResult"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Arguments:
        output_dir: Folder of the saved model.
        global_step: Updates made.
        loss: Mean training loss of the last logging interval; None before the first.
        validation_loss: Last loss on the held-out images; None without any.
        finished: Whether all updates were made; False after a signal, when only a checkpoint and
            no model is saved, unless hub_strategy is "checkpoint".
        push_error: Why the last state is not on the Hub; None if it is there, or if nothing was
            to be pushed. Only the main process knows.
        best_step: The step after which best_by was best; None where it was never measured.
    """

    output_dir: Path
    global_step: int
    loss: float | None
    validation_loss: float | None
    finished: bool
    push_error: str | None = None
    best_step: int | None = None


class Trainer:
    """One run on one process, from its beginning to its end.

    Arguments:
        config: Resolved.
        accelerator: The processes of the run, and this one's device.
        data: The images.
        derived: The options of the config that nobody gave.
        callbacks: What the caller wants to be told and asked.
        keeps_group: Whether the processes had met before the run, and stay together after it.
        start: What the run starts from; fresh weights unless given.
    """

    def __init__(
        self,
        config: TrainingConfig,
        accelerator: Accelerator,
        data: TrainingData,
        *,
        derived: tuple[str, ...] = (),
        callbacks: Callbacks | None = None,
        keeps_group: bool = False,
        start: Start | None = None,
    ) -> None:
        self._keeps_group = keeps_group
        self.config, self.accelerator, self.data = config, accelerator, data
        self.callbacks = callbacks or Callbacks()
        self.step = 0
        self.folder = RunFolder(config.output_dir)
        start = Start() if start is None else start
        unet = start.unet(config, data)
        scheduler = clamped_as_trained(start.scheduler(config), unet)
        self.learner = Learner(config, scheduler.schedule, unet, accelerator)
        loader = data.loader(accelerator.process_index, accelerator.num_processes)
        self.batches = batches_on(loader, accelerator.device)
        self.monitor = Monitor(config, data, scheduler, self.learner, self.folder, self.callbacks)
        self.saver = RunSaver(
            RunIdentity(config, accelerator.num_processes, data.fingerprints, derived),
            self.folder,
            scheduler,
            self.learner,
            self.batches,
            self.monitor,
            num_images=data.length,
            known_images=lambda: data.known_images,
            callbacks=self.callbacks,
            start=start.state(),
        )

    def run(self) -> TrainingResult:
        """Train until all updates are made or a signal comes."""
        on_main(self.folder.lock, self.accelerator)
        threads = torch.get_num_threads()
        try:
            try:
                with StopSignals(self.accelerator) as signals:
                    self._begin()
                    received = self._train(signals)
                    result = self._end() if self._is_done else self._stop(received)
            finally:
                self.saver.close()
                self._release_processes()
            return replace(result, push_error=self.saver.finish_push())
        finally:
            torch.set_num_threads(threads)
            self.folder.unlock()

    def _begin(self) -> None:
        """Start from nothing, or where the checkpoint that the folder holds was written."""
        self.step, metrics = self.saver.begin()
        self.monitor.begin(self.step, metrics)
        self.learner.unet.train()
        chosen = self.saver.chosen_threads
        if self.config.num_threads is None and self.step == 0:
            chosen = try_threads(self.config, self.learner, self.data)
        self.saver.chosen_threads = chosen
        if self.config.num_threads or chosen:
            torch.set_num_threads(self.config.num_threads or chosen)

    def _train(self, signals: StopSignals) -> int:
        """Make updates until there are no more or a signal comes; give the signal, or 0."""
        received = 0
        bar = tqdm(
            total=self.config.max_train_steps,
            initial=self.step,
            desc="Training",
            unit=" steps",
            disable=not self.accelerator.is_main_process,
        )
        with bar, self.batches as batches:
            if self._is_done and self.step == 0:
                self._measure()
            self.monitor.start_clock()
            while not (self._is_done or received):
                self._advance(batches, bar)
                received = signals.received(asked=self.callbacks.asks_to_stop(self.step))
            if received or self.config.checkpointing_steps:
                self.saver.save_checkpoint(self.step)
        self.saver.finish_writing()
        return received

    @property
    def _is_done(self) -> bool:
        return self.step >= self.config.max_train_steps or self.monitor.keeper.stops

    def _advance(self, batches: Iterator[Batch], bar: tqdm) -> None:
        """Make one update, then do all that is due after it."""
        self.monitor.add(*self.learner.update(self.step, batches))
        self.step += 1
        bar.update()
        self.saver.check_writing()
        if self._is_done or self._is_due(self.config.logging_steps):
            loss, speed = self.monitor.log(self.step)
            bar.set_postfix(loss=f"{loss:.4f}", images_per_s=f"{speed:.0f}")
        with self.monitor.stopped_clock():
            self._measure()
            self._save()

    def _is_due(self, every: int) -> bool:
        """Tell whether something that is done every so many updates is due now."""
        return every > 0 and self.step % every == 0

    def _measure(self) -> None:
        """Validate, measure the bound and distances, draw samples, as far as they are due.

        What tells which weights are the best is measured at the end too. A run may find that it
        is to stop early meanwhile; then this is its end.
        """
        config, monitor, is_last = self.config, self.monitor, self._is_done
        chooses_by = config.best_by if is_chosen(config) else None
        if self.data.validation is not None and (is_last or self._is_due(config.validation_steps)):
            monitor.validate(self.step)
        if self._is_due(config.validate_bound_steps) or (is_last and chooses_by == "bound"):
            monitor.measure_bound(self.step)
        every = config.validate_fid_steps
        if every and (self._is_done or self._is_due(every)):
            monitor.measure_distances(self.step)
        if self._is_done or self._is_due(config.save_images_steps):
            monitor.preview(self.step)

    def _save(self) -> None:
        """Save averages, the model, then a checkpoint, then push, as far as they are due.

        The end of the run saves and pushes its model by itself.
        """
        config, saver = self.config, self.saver
        saves = self._is_due(config.save_model_steps) and not self._is_done
        checkpoints = self._is_due(config.checkpointing_steps)
        pushes_checkpoint = checkpoints and saver.pushes_with("checkpoint") and not self._is_done
        if config.post_hoc_steps and (self._is_done or self._is_due(config.post_hoc_steps)):
            saver.save_snapshot(self.step)
        if saves:
            saver.save_model(self.step)
        if config.checkpointing_steps and self._ends_before_cooldown():
            saver.keep_checkpoint(self.step)
        if checkpoints:
            saver.save_checkpoint(self.step)
        if pushes_checkpoint and not saves:
            saver.save_model(self.step)
        if pushes_checkpoint or (saves and saver.pushes_with("every_save")):
            saver.submit_push(self.step)

    def _ends_before_cooldown(self) -> bool:
        """Tell whether this update was the last that any longer run makes as well."""
        length = self.config.max_train_steps
        cools = self.config.lr_scheduler == "constant_with_cooldown" and not self._is_done
        return cools and self.step == steps_before_cooldown(length)

    def _stop(self, received: int) -> TrainingResult:
        """Leave a run that a signal stopped, whose checkpoint is saved."""
        logger.warning(
            "stopped by %s after step %d; the same command goes on from there",
            "should_stop" if received == ASKED else signal.Signals(received).name,
            self.step,
        )
        if self.saver.pushes_with("checkpoint"):
            self.saver.save_model(self.step)
            self.saver.submit_push(self.step)
        return self._result(finished=False)

    def _end(self) -> TrainingResult:
        """Save and push the model of a run that has made all its updates.

        Raises:
            FloatingPointError: If a loss since the last log entry is not finite.
        """
        self.monitor.check_losses(self.step)
        if not self.saver.has_saved_model(self.step):
            self.saver.save_model(self.step)
        if self.accelerator.is_main_process:
            self.monitor.keeper.report(self.step)
        self.saver.submit_push(self.step)
        return self._result(finished=True)

    def _result(self, *, finished: bool) -> TrainingResult:
        monitor = self.monitor
        return TrainingResult(
            self.folder.path,
            self.step,
            monitor.loss,
            monitor.validation_loss,
            finished,
            best_step=monitor.keeper.step,
        )

    def _release_processes(self) -> None:
        """End the process group, with nothing left that holds it.

        Were DDP's reducer the last to hold it, the reducer's destructor would wait for gloo's
        threads with Python's lock held, which those threads may need: a run that hangs at its end.
        """
        self.learner.unwrap()
        self.accelerator.free_memory()
        if not self._keeps_group:
            self.accelerator.end_training()
            return
        for tracker in self.accelerator.trackers:
            tracker.finish()
