"""What a run measures and shows now and then: losses, validation, bits/dim, sample grids.

    monitor.add(loss, grad_norm)        after every update; nothing is read from the device
    monitor.log(step)                   reads, checks and records the means since the last time
    monitor.validate(step)              ... and so on, when the trainer says so

Numbers go into metrics.jsonl and to accelerate's trackers, grids into the folder's samples.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from ddpm_pipeline.common import write_picture
from ddpm_pipeline.networks import facts_of
from ddpm_pipeline.training.callbacks import Callbacks
from ddpm_pipeline.training.keeping import Keeper
from ddpm_pipeline.training.log import DeviceLosses, MetricsFile, start_trackers, track_image
from ddpm_pipeline.training.previews import (
    draw_samples,
    drawn_classes,
    open_guide_of_previews,
    sample_grid,
)
from ddpm_pipeline.training.validation import validation_bound, validation_loss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ddpm_pipeline.schedulers import DDPMScheduler
    from ddpm_pipeline.training.config import TrainingConfig
    from ddpm_pipeline.training.data import TrainingData
    from ddpm_pipeline.training.learner import Learner
    from ddpm_pipeline.training.storage.folder import RunFolder

__all__ = ["Monitor"]


_NONE = Callbacks()


class Monitor:
    """Measures a run, and knows the last losses and the best average.

    Arguments:
        config: Resolved.
        data: The images of the run.
        scheduler: What is trained for.
        learner: Whose weights are measured.
        folder: Where metrics and sample grids go.
        callbacks: Are told of every entry.
    """

    def __init__(
        self,
        config: TrainingConfig,
        data: TrainingData,
        scheduler: DDPMScheduler,
        learner: Learner,
        folder: RunFolder,
        callbacks: Callbacks = _NONE,
    ) -> None:
        self._callbacks = callbacks
        self._config, self._data, self._scheduler = config, data, scheduler
        self._learner, self._folder = learner, folder
        self._accelerator = learner.accelerator
        self._guide = open_guide_of_previews(learner.unet, scheduler, config, data.shown)
        self._losses = DeviceLosses(
            config.logging_steps,
            self._accelerator,
            check_norms=config.mixed_precision != "fp16",
        )
        self._clock = time.perf_counter()
        self.loss: float | None = None
        self.validation_loss: float | None = None
        self.best_decay = config.ema_decay[0] if config.use_ema else None
        self.distances: dict[str, float] | None = None
        self.keeper = Keeper(config, learner)
        self._grid_step: int | None = None
        self._meter: Any = None  # a DistanceMeter, where distances are measured
        if config.validate_fid_steps:
            from ddpm_pipeline.training.distances import DistanceMeter  # with all it needs

            self._meter = DistanceMeter(config, data, self._accelerator)

    def begin(self, step: int, metrics: bytes) -> None:
        """Begin to record after that many updates.

        Arguments:
            step: Updates made.
            metrics: What metrics.jsonl held then.
        """
        if self._accelerator.is_main_process:
            self._metrics = MetricsFile(self._folder.metrics, metrics)
        logs = self._folder.path / self._config.logging_dir
        before = set(logs.rglob("*"))
        start_trackers(self._accelerator, self._config, step)
        if self._accelerator.is_main_process:
            written = [path for path in logs.rglob("*") if path not in before]
            self._folder.written.note(*(path for path in written if path.is_file()))

    # Losses and speed.

    def start_clock(self) -> None:
        """Count the time of updates, of which the speed is told, from now on."""
        self._clock = time.perf_counter()

    @contextmanager
    def stopped_clock(self) -> Iterator[None]:
        """Leave what is done in the block out of the time of updates."""
        began = time.perf_counter()
        yield
        self._clock += time.perf_counter() - began

    def add(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Note one update, without reading it from the device."""
        self._losses.add(loss, grad_norm)

    def check_losses(self, step: int) -> None:
        """Raise FloatingPointError if a loss since the last log entry is not finite."""
        self._losses.read(step)

    def log(self, step: int) -> tuple[float, float]:
        """Record the means since the last log entry.

        Returns:
            The mean loss, and images per second.
        Raises:
            FloatingPointError: If one is not finite.
        """
        means = self._losses.read(step)
        config, world = self._config, self._accelerator.num_processes
        batch = config.train_batch_size * config.gradient_accumulation_steps * world
        now = time.perf_counter()
        speed = self._losses.count * batch / (now - self._clock)
        self._clock = now
        self._losses.clear()
        self.loss = means["loss"]
        self._record(
            step,
            **means,
            learning_rate=self._learner.learning_rate(step - 1),
            images_per_second=speed,
            **({"epoch": step * batch / self._data.length} if self._data.length else {}),
        )
        return self.loss, speed

    def _record(self, step: int, **values: float) -> None:
        if self._accelerator.is_main_process:
            self._metrics.write({"step": step, **values})
            self._callbacks.logged(step, values)
        self._accelerator.log(values, step=step)

    # Held-out images and samples.

    def validate(self, step: int) -> None:
        """Measure the loss of every average on the held-out images; find the best average."""
        decays = self._config.ema_decay if self._config.use_ema else (None,)
        losses = {decay: self._loss_of_average(decay) for decay in decays}
        self.best_decay = min(losses, key=losses.get)
        self.validation_loss = losses[self.best_decay]
        several = {f"validation_loss_{decay}": loss for decay, loss in losses.items()}
        self._record(
            step,
            validation_loss=self.validation_loss,
            **(several if len(losses) > 1 else {}),
        )
        self._choose(step, "validation_loss", self.validation_loss)

    def _choose(self, step: int, criterion: str, value: float) -> None:
        """Keep the weights that were measured, if they are the best, with a grid of theirs."""
        if self.keeper.note(step, criterion, value, self.best_decay):
            self.preview(step)

    def _loss_of_average(self, decay: float | None) -> float:
        learner, config = self._learner, self._config
        with learner.evaluating(decay):
            total = validation_loss(
                learner.losses,
                self._data.validation,
                num_train_timesteps=config.ddpm_num_steps,
                batch_size=config.train_batch_size,
                device=self._accelerator.device,
                rank=self._accelerator.process_index,
                world_size=self._accelerator.num_processes,
            )
        total = self._accelerator.reduce(total, reduction="sum")
        return (total[0] / total[1]).item()

    def measure_bound(self, step: int) -> None:
        """Measure bits/dim of the best average on held-out images, in full precision."""
        with self._learner.evaluating(self.best_decay):
            report = validation_bound(
                self._learner.unet,
                self._scheduler,
                self._data.validation,
                num_images=self._config.validate_bound_images,
                accelerator=self._accelerator,
            )
        parts = ("bits_per_dim", "standard_error", "prior", "decoder")
        values = {f"bound_{name}": float(getattr(report, name)) for name in parts}
        self._record(step, **values, bound_transitions=float(report.transitions.sum()))
        self._choose(step, "bound", values["bound_bits_per_dim"])

    def measure_distances(self, step: int) -> None:
        """Measure the distances of the best average's samples to real images."""
        learner = self._learner
        with learner.evaluating(self.best_decay):
            self.distances = self._meter.measure(learner.unet, self._scheduler, learner.autocast)
        self._record(step, **self.distances)
        self._choose(step, "distance", self.distances["distance"])

    def preview(self, step: int) -> None:
        """Draw a grid of samples with the best average."""
        if step == self._grid_step:
            return
        learner, self._grid_step = self._learner, step
        with learner.evaluating(self.best_decay), learner.autocast():
            images = draw_samples(
                learner.unet,
                self._scheduler,
                self._config,
                self._accelerator,
                self._guide,
                self._data.shown,
            )
        if images is not None:
            classes = drawn_classes(learner.unet)
            count = None if classes is None else len(classes)
            grid = sample_grid(images, count, facts_of(learner.unet).picture_bands)
            path = self._folder.grid_path(step)
            self._folder.written.note(path)
            write_picture(path, grid)
            track_image(self._accelerator, "samples", grid, step)

    # Checkpoints.

    def state(self) -> dict[str, Any]:
        """Give the last losses and the best average, as JSON values."""
        return {
            "loss": self.loss,
            "validation_loss": self.validation_loss,
            "best_decay": self.best_decay,
            "distances": self.distances,
            **self.keeper.state(),
        }

    @property
    def measured(self) -> dict[str, Any]:
        """Give what a run's record says of its samples, and of the weights that it keeps."""
        found = {"distances": self.distances, "kept": self.keeper.record}
        return {name: values for name, values in found.items() if values is not None}

    def unread_losses(self) -> list[list[float]]:
        """Give this process's losses and gradient norms since the last log entry."""
        return self._losses.state().tolist()

    def load(
        self,
        state: dict[str, Any],
        unread_losses: list[list[float]],
        tensors: Mapping[str, Mapping[str, Tensor]],
    ) -> None:
        """Go on from a ``state``, this process's ``unread_losses`` and a checkpoint's tensors."""
        self.distances = state.get("distances")
        self.keeper.load(state, tensors)
        self.loss = state["loss"]
        self.validation_loss = state["validation_loss"]
        self.best_decay = state["best_decay"]
        self._losses.load(torch.tensor(unread_losses).reshape(-1, 2))
