"""Training a DDPM from a ``TrainingConfig`` to a saved model.

    result = train(TrainingConfig(train_data_dir="photos/", output_dir="model"))
    DDPMPipeline.from_pretrained(result.output_dir)

A run that was killed at any moment goes on when the same call is made again, and ends with the
same bits as one that was not. Everything random in update i follows from (seed, i, micro-step,
process), and the learning rate and the order of the data follow from i; the weights, the
optimiser and the averages are in the checkpoints, which are whole or absent.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from diffusers import UNet2DModel
from tqdm.auto import tqdm

from ddpm_pipeline.common import stream_generator
from ddpm_pipeline.data import Prefetcher, image_grid
from ddpm_pipeline.hub import parse_hub_checkpoint
from ddpm_pipeline.pipelines import DDPMPipeline
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.data import TrainingData
from ddpm_pipeline.training.learner import Learner
from ddpm_pipeline.training.log import DeviceLosses, MetricsFile, start_trackers, track_image
from ddpm_pipeline.training.previews import draw_samples
from ddpm_pipeline.training.setup import make_scheduler, make_unet
from ddpm_pipeline.training.stopping import StopSignals
from ddpm_pipeline.training.storage.checkpoints import (
    Checkpoint,
    checkpoint_path,
    read_checkpoint,
    write_checkpoint,
)
from ddpm_pipeline.training.storage.folder import RunFolder
from ddpm_pipeline.training.storage.identity import RunIdentity
from ddpm_pipeline.training.storage.record import training_record
from ddpm_pipeline.training.validation import validation_bound, validation_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ddpm_pipeline.data import Batch
    from ddpm_pipeline.training.storage.push import BackgroundPush

__all__ = []

logger = logging.getLogger(__name__)


T = TypeVar("T")


@dataclass(frozen=True)
class TrainingResult:
    """What a run ended with.

    Arguments:
        output_dir: Folder of the saved model.
        global_step: Updates made.
        loss: Mean training loss of the last logging interval; None before the first.
        validation_loss: Last loss on the held-out images; None without any.
        finished: Whether all updates were made; False after a signal, when only a checkpoint and
            no model is saved, unless hub_strategy is "checkpoint".
        push_error: Why the last state is not on the Hub; None if it is, or was not to be pushed.
            Only the main process knows.
    """

    output_dir: Path
    global_step: int
    loss: float | None
    validation_loss: float | None
    finished: bool
    push_error: str | None = None


class Trainer:
    """The parts of one run on one process."""

    def __init__(
        self,
        config: TrainingConfig,
        accelerator: Accelerator,
        data: TrainingData,
    ) -> None:
        self.config, self.accelerator, self.data = config, accelerator, data
        self.folder = RunFolder(config.output_dir)
        fingerprints = {"train_data": data.fingerprint}
        if data.validation is not None:
            fingerprints["validation_data"] = data.validation.fingerprint
        self.identity = RunIdentity(config, accelerator.num_processes, fingerprints)
        self.scheduler = make_scheduler(config)
        torch.manual_seed(stream_generator("init", config.seed).initial_seed())
        unet = make_unet(config, data.channels, data.num_classes)
        self.learner = Learner(config, self.scheduler.schedule, unet, accelerator)
        self.losses = DeviceLosses(
            config.logging_steps, accelerator, check_norms=config.mixed_precision != "fp16"
        )
        loader = data.loader(accelerator.process_index, accelerator.num_processes)
        self.batches = Prefetcher(loader, accelerator.device)
        self.step, self.saved_step = 0, -1
        self._began, self._earlier_seconds = time.perf_counter(), 0.0
        self.best_decay = config.ema_decay[0] if config.use_ema else None
        self.loss: float | None = None
        self.validation_loss: float | None = None
        self.push: BackgroundPush | None = None  # on the main process, if pushing is asked for

    def _on_main(self, function: Callable[[], T]) -> T:
        """The main process's result on every process, or its exception on every process."""
        outcome: list[Any] = [None, None]
        if self.accelerator.is_main_process:
            try:
                outcome[0] = function()
            except Exception as error:
                if self.accelerator.num_processes == 1:
                    raise
                outcome[1] = error
        broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    # The course of a run.

    def go(self) -> TrainingResult:
        self._on_main(self.folder.lock)
        try:
            try:
                with StopSignals(self.accelerator) as signals:
                    result = self._go(signals)
            finally:
                self._release_processes()
            if self.push is None:
                return result
            return replace(result, push_error=self.push.finish(self.config.hub_timeout))
        finally:
            self.folder.unlock()

    def _release_processes(self) -> None:
        """End the process group, with nothing left that holds it.

        Were DDP's reducer the last to hold it, the reducer's destructor would wait for gloo's
        threads with Python's lock held, which those threads may need: a run that hangs at its end.
        """
        learner = self.learner
        learner.model = learner.forward = learner.unet
        self.accelerator.free_memory()
        self.accelerator.end_training()

    def _go(self, signals: StopSignals) -> TrainingResult:
        checkpoint = self._on_main(self._begin_folder)
        metrics = b"" if checkpoint is None else self._restore(read_checkpoint(checkpoint))
        if self.accelerator.is_main_process:
            self.metrics = MetricsFile(self.folder.metrics, metrics)
        start_trackers(self.accelerator, self.config, self.step)
        begun = self.step
        self.learner.unet.train()
        bar = tqdm(
            total=self.config.max_train_steps,
            initial=self.step,
            desc="Training",
            unit=" steps",
            disable=not self.accelerator.is_main_process,
        )
        stopped = 0
        with bar, self.batches as batches:
            self._clock = time.perf_counter()
            while self.step < self.config.max_train_steps and not stopped:
                self._advance(batches, bar)
                stopped = signals.received()
            if stopped or self.config.checkpointing_steps:
                self._save_checkpoint()
        if self.step < self.config.max_train_steps:
            logger.warning(
                "stopped by %s after step %d; the same command goes on from there",
                signal.Signals(stopped).name,
                self.step,
            )
            if self._pushes("checkpoint"):
                self._save_model()
                self._submit_push()
            return self._result(finished=False)
        is_saved = self.step == begun and self._on_main(
            lambda: self.folder.holds_model_of(checkpoint, self.step)
        )
        if not is_saved:
            self._save_model()
        self._submit_push()
        return self._result(finished=True)

    def _begin_folder(self) -> Path | None:
        """Make the folder ready, and what pushes it; the checkpoint to go on from."""
        config = self.config
        source = parse_hub_checkpoint(config.resume_from_checkpoint, config.hub_model_id)
        if source is None and not config.push_to_hub:
            return self.folder.begin(self.identity)
        from ddpm_pipeline.training.storage.push import begin_with_hub

        checkpoint, self.push = begin_with_hub(self.folder, self.identity, source)
        return checkpoint

    def _result(self, *, finished: bool) -> TrainingResult:
        return TrainingResult(
            self.folder.path, self.step, self.loss, self.validation_loss, finished
        )

    def _advance(self, batches: Iterator[Batch], bar: tqdm) -> None:
        """One update, and all that is due after it; the checkpoint comes last."""
        config = self.config
        self.losses.add(*self.learner.update(self.step, batches))
        self.step += 1
        bar.update()
        last = self.step == config.max_train_steps
        if last or self._due(config.logging_steps):
            self._log(bar)
        began = time.perf_counter()
        if self.data.validation is not None and (last or self._due(config.validation_steps)):
            self._validate()
        if self._due(config.validate_bound_steps):
            self._validate_bound()
        if last or self._due(config.save_images_steps):
            self._preview()
        saves = self._due(config.save_model_steps) and not last
        if saves:
            self._save_model()
        if self._due(config.checkpointing_steps):
            self._save_checkpoint()
            if self._pushes("checkpoint") and not last:
                if not saves:
                    self._save_model()
                self._submit_push()
        if saves and self._pushes("every_save"):
            self._submit_push()
        self._clock += time.perf_counter() - began

    def _due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    # What is due now and then.

    def _log(self, bar: tqdm) -> None:
        means = self.losses.read(self.step)
        config, world = self.config, self.accelerator.num_processes
        batch = config.train_batch_size * config.gradient_accumulation_steps * world
        now = time.perf_counter()
        speed = self.losses.count * batch / (now - self._clock)
        self._clock = now
        self.losses.clear()
        self.loss = means["loss"]
        bar.set_postfix(loss=f"{self.loss:.4f}", images_per_s=f"{speed:.0f}")
        self._record(
            **means,
            learning_rate=self.learner.learning_rate(self.step - 1),
            images_per_second=speed,
            **({"epoch": self.step * batch / self.data.length} if self.data.length else {}),
        )

    def _record(self, **values: float) -> None:
        if self.accelerator.is_main_process:
            self.metrics.write({"step": self.step, **values})
        self.accelerator.log(values, step=self.step)

    def _validate(self) -> None:
        """The loss of every average on the held-out images; the best is the one to be saved."""
        decays = self.config.ema_decay if self.config.use_ema else (None,)
        losses = {decay: self._loss_of_average(decay) for decay in decays}
        self.best_decay = min(losses, key=losses.get)
        self.validation_loss = losses[self.best_decay]
        several = {f"validation_loss_{decay}": loss for decay, loss in losses.items()}
        self._record(validation_loss=self.validation_loss, **(several if len(losses) > 1 else {}))

    def _loss_of_average(self, decay: float | None) -> float:
        learner, config = self.learner, self.config
        with learner.averages.applied(decay), learner.evaluating():
            total = validation_loss(
                learner.losses,
                self.data.validation,
                num_train_timesteps=config.ddpm_num_steps,
                batch_size=config.train_batch_size,
                device=self.accelerator.device,
                rank=self.accelerator.process_index,
                world_size=self.accelerator.num_processes,
            )
        total = self.accelerator.reduce(total, reduction="sum")
        return (total[0] / total[1]).item()

    def _validate_bound(self) -> None:
        """Bits/dim of the best average on held-out images, in full precision, with its parts."""
        learner = self.learner
        with learner.averages.applied(self.best_decay), learner.evaluating():
            report = validation_bound(
                learner.unet,
                self.scheduler,
                self.data.validation,
                num_images=self.config.validate_bound_images,
                accelerator=self.accelerator,
            )
        parts = ("bits_per_dim", "standard_error", "prior", "decoder")
        numbers = {name: getattr(report, name) for name in parts}
        transitions = float(report.transitions.sum())
        self._record(
            **{f"bound_{k}": float(v) for k, v in numbers.items()}, bound_transitions=transitions
        )

    def _preview(self) -> None:
        learner = self.learner
        average = learner.averages.applied(self.best_decay)
        with average, learner.evaluating(), learner.autocast():
            images = draw_samples(learner.unet, self.scheduler, self.config, self.accelerator)
        if images is not None:
            grid = image_grid(images)
            grid.save(self.folder.samples / f"step-{self.step:07d}.png")
            track_image(self.accelerator, "samples", grid, self.step)

    def _save_model(self) -> None:
        """Save the pipeline with the averaged weights."""
        weights = self.learner.weights(self.best_decay)
        self._on_main(
            lambda: self.folder.save_model(
                DDPMPipeline(self._unet(weights), self.scheduler), self._training_record()
            )
        )

    def _training_record(self) -> dict[str, Any]:
        steps, images = self.step, self.data.length
        seconds = self._seconds()
        return training_record(
            self.config, self.accelerator, steps=steps, seconds=seconds, num_images=images
        )

    def _seconds(self) -> float:
        """Time that the run took so far, in all its parts."""
        return self._earlier_seconds + time.perf_counter() - self._began

    def _unet(self, state: dict[str, Tensor]) -> UNet2DModel:
        """A network of these weights on the CPU, in plain memory order."""
        with torch.device("meta"):
            unet = UNet2DModel.from_config(self.learner.unet.config)
        copies = {name: value.detach().to("cpu").contiguous() for name, value in state.items()}
        unet.load_state_dict(copies, assign=True)
        return unet

    def _pushes(self, strategy: str) -> bool:
        return self.config.push_to_hub and self.config.hub_strategy == strategy

    def _submit_push(self) -> None:
        """Have the model pushed that was just saved, with the checkpoint that was if asked."""
        if self.push is not None:
            along = self._pushes("checkpoint")
            checkpoint = checkpoint_path(self.folder.checkpoints, self.saved_step)
            self.push.submit(self.step, checkpoint if along else None)

    # Checkpoints.

    def _save_checkpoint(self) -> None:
        """Write a checkpoint, unless the newest one is of this step."""
        if self.saved_step == self.step:
            return
        self.losses.read(self.step)  # a loss that is not finite must not reach a checkpoint
        processes = gather_object(
            [{"loader": self.batches.state_dict(), "losses": self.losses.state().tolist()}]
        )
        tensors = self.learner.state()
        self._on_main(lambda: self._write_checkpoint(processes, tensors))
        self.saved_step = self.step

    def _write_checkpoint(
        self, processes: list[dict[str, Any]], tensors: dict[str, dict[str, Tensor]]
    ) -> None:
        state = {
            "identity": self.identity.to_dict(),
            "processes": processes,
            "scaler": self.learner.scaler.state_dict(),
            "loss": self.loss,
            "validation_loss": self.validation_loss,
            "best_decay": self.best_decay,
            "seconds": self._seconds(),
        }
        files = {self.folder.metrics.name: self.folder.metrics.read_bytes()}
        write_checkpoint(
            self.folder.checkpoints,
            Checkpoint(self.step, tensors, state, files),
            limit=self.config.checkpoints_total_limit,
        )

    def _restore(self, checkpoint: Checkpoint) -> bytes:
        """Go on from a checkpoint; the metrics file as it was then."""
        self.step = self.saved_step = checkpoint.step
        self.learner.load(checkpoint.tensors, checkpoint.step)
        self.learner.scaler.load_state_dict(checkpoint.state["scaler"])
        mine = checkpoint.state["processes"][self.accelerator.process_index]
        self.batches.load_state_dict(mine["loader"])
        self.losses.load(torch.tensor(mine["losses"]).reshape(-1, 2))
        self.loss = checkpoint.state["loss"]
        self.validation_loss = checkpoint.state["validation_loss"]
        self.best_decay = checkpoint.state["best_decay"]
        self._earlier_seconds = checkpoint.state.get("seconds", 0.0)
        return checkpoint.files[self.folder.metrics.name]
