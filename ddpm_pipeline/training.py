"""Training a DDPM from a ``TrainingConfig`` to a saved model.

    result = train(TrainingConfig(train_data_dir="photos/", output_dir="model"))
    DDPMPipeline.from_pretrained(result.output_dir)

``output_dir`` then holds the model with its averaged weights, training_config.json, metrics.jsonl,
samples/ and checkpoints/. Everything random in update i follows from (seed, i, micro-step,
process), and the learning rate and the order of the data follow from i: nothing hidden has to be
saved for a run to continue exactly.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from diffusers import DDIMScheduler, UNet2DModel
from tqdm.auto import tqdm

from ddpm_pipeline.loading import ImageLoader, Prefetcher
from ddpm_pipeline.pipeline import DDPMPipeline
from ddpm_pipeline.previews import draw_samples, image_grid
from ddpm_pipeline.trainer import Trainer
from ddpm_pipeline.training_config import PRESETS, TrainingConfig
from ddpm_pipeline.training_metrics import DeviceLosses, MetricsFile
from ddpm_pipeline.training_setup import (
    make_scheduler,
    open_training_data,
    resolve,
    stream_generator,
)
from ddpm_pipeline.unets import make_unet
from ddpm_pipeline.validation import validation_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ddpm_pipeline.data import Batch, ImageData

__all__ = ["PRESETS", "TrainingConfig", "TrainingResult", "train"]


@dataclass(frozen=True)
class TrainingResult:
    """What a run ended with.

    Arguments:
        output_dir: Folder of the saved model.
        global_step: Updates made.
        loss: Mean training loss of the last logging interval; None if nothing was left to do.
        validation_loss: Last loss on the held-out images; None without any.
    """

    output_dir: Path
    global_step: int
    loss: float | None
    validation_loss: float | None


def train(
    config: TrainingConfig,
    *,
    train_data: ImageData | None = None,
    validation_data: ImageData | None = None,
) -> TrainingResult:
    """Train a model, or continue the run that is in ``output_dir``.

    Arguments:
        config: All options.
        train_data: Images that are open already, in place of those the config names.
        validation_data: Held-out images, with train_data.
    Raises:
        ValueError: If an option or the data do not fit.
        FileExistsError: If output_dir holds another run.
        FloatingPointError: If the loss is not finite.
        OSError: If something cannot be read or written.
    """
    accelerator = Accelerator(mixed_precision="no")
    if train_data is None:
        train_data, validation_data = open_training_data(config)
    config = resolve(
        config,
        length=len(train_data),
        world_size=accelerator.num_processes,
        device=accelerator.device,
    )
    return _Run(config, accelerator, train_data, validation_data).go()


class _Run:
    """The parts of one run on one process."""

    def __init__(
        self,
        config: TrainingConfig,
        accelerator: Accelerator,
        train_data: ImageData,
        validation_data: ImageData | None,
    ) -> None:
        self.config, self.accelerator = config, accelerator
        self.train_data, self.validation_data = train_data, validation_data
        self.output_dir = Path(config.output_dir)
        self.scheduler = make_scheduler(config)
        torch.manual_seed(stream_generator("init", config.seed).initial_seed())
        unet = make_unet(config, train_data.channels, train_data.num_classes)
        self.trainer = Trainer(config, self.scheduler.schedule, unet, accelerator)
        self.losses = DeviceLosses(
            config.logging_steps, accelerator, check_norms=config.mixed_precision != "fp16"
        )
        self.batches = Prefetcher(
            ImageLoader(
                train_data,
                batch_size=config.train_batch_size,
                seed=config.seed,
                rank=accelerator.process_index,
                world_size=accelerator.num_processes,
            ),
            accelerator.device,
        )
        self.step = 0
        self.loss: float | None = None
        self.validation_loss: float | None = None

    def go(self) -> TrainingResult:
        config = self.config
        if self.accelerator.is_main_process:
            (self.output_dir / "samples").mkdir(parents=True, exist_ok=True)
            config.save_json(self.output_dir / "training_config.json")
            self.metrics = MetricsFile(self.output_dir / "metrics.jsonl", self.step)
        self.accelerator.wait_for_everyone()
        self.trainer.unet.train()
        bar = tqdm(
            total=config.max_train_steps,
            initial=self.step,
            desc="Training",
            unit=" steps",
            disable=not self.accelerator.is_main_process,
        )
        with bar, self.batches as batches:
            self._clock = time.perf_counter()
            while self.step < config.max_train_steps:
                self._advance(batches, bar)
        self._save_model()
        return TrainingResult(self.output_dir, self.step, self.loss, self.validation_loss)

    def _advance(self, batches: Iterator[Batch], bar: tqdm) -> None:
        """One update, and all that is due after it."""
        config = self.config
        self.losses.add(*self.trainer.update(self.step, batches))
        self.step += 1
        bar.update()
        last = self.step == config.max_train_steps
        if last or self._due(config.logging_steps):
            self._log(bar)
        began = time.perf_counter()
        if self.validation_data is not None and (last or self._due(config.validation_steps)):
            self._validate()
        if last or self._due(config.save_images_steps):
            self._preview()
        self._clock += time.perf_counter() - began

    def _due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

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
            learning_rate=self.trainer.learning_rate(self.step - 1),
            epoch=self.step * batch / len(self.train_data),
            images_per_second=speed,
        )

    def _record(self, **values: float) -> None:
        if self.accelerator.is_main_process:
            self.metrics.write({"step": self.step, **values})

    def _validate(self) -> None:
        trainer, config = self.trainer, self.config
        with trainer.averages.applied(), _evaluating(trainer.unet):
            total = validation_loss(
                trainer.losses,
                self.validation_data,
                num_train_timesteps=config.ddpm_num_steps,
                batch_size=config.train_batch_size,
                device=self.accelerator.device,
                rank=self.accelerator.process_index,
                world_size=self.accelerator.num_processes,
            )
        total = self.accelerator.reduce(total, reduction="sum")
        self.validation_loss = (total[0] / total[1]).item()
        self._record(validation_loss=self.validation_loss)

    def _preview(self) -> None:
        """A grid of samples, each process drawing its share."""
        config, accelerator, unet = self.config, self.accelerator, self.trainer.unet
        scheduler = self.scheduler
        if config.preview_scheduler == "ddim":
            scheduler = DDIMScheduler.from_config(scheduler.config)
        pipeline = DDPMPipeline(unet, scheduler)
        pipeline.set_progress_bar_config(disable=True)
        share = range(config.eval_batch_size)[
            accelerator.process_index :: accelerator.num_processes
        ]
        with self.trainer.averages.applied(), _evaluating(unet), self.trainer.autocast():
            images = draw_samples(
                pipeline,
                share,
                seed=config.seed,
                num_inference_steps=config.ddpm_num_inference_steps,
                num_classes=self.train_data.num_classes,
            )
        drawn = dict(gather_object(list(zip(share, images, strict=True))))
        if accelerator.is_main_process:
            grid = image_grid(np.stack([drawn[i] for i in range(config.eval_batch_size)]))
            grid.save(self.output_dir / "samples" / f"step-{self.step:07d}.png")

    def _save_model(self) -> None:
        """Save the pipeline with the averaged weights, replacing an older one as a whole."""
        if self.accelerator.is_main_process:
            aside = self.output_dir / ".model.tmp"
            shutil.rmtree(aside, ignore_errors=True)
            DDPMPipeline(self._averaged_unet(), self.scheduler).save_pretrained(aside)
            for part in aside.iterdir():
                target = self.output_dir / part.name
                if target.is_dir():
                    shutil.rmtree(target)
                part.replace(target)
            aside.rmdir()
        self.accelerator.wait_for_everyone()

    def _averaged_unet(self) -> UNet2DModel:
        """A copy on the CPU, in plain memory order."""
        state = self.trainer.unet.state_dict()
        if self.config.use_ema:
            state |= self.trainer.averages.state(self.config.ema_decay[0])
        with torch.device("meta"):
            unet = UNet2DModel.from_config(self.trainer.unet.config)
        copies = {name: value.detach().to("cpu").contiguous() for name, value in state.items()}
        unet.load_state_dict(copies, assign=True)
        return unet


class _evaluating:  # noqa: N801
    """Dropout off for a while."""

    def __init__(self, unet: UNet2DModel) -> None:
        self._unet = unet

    def __enter__(self) -> None:
        self._unet.eval()

    def __exit__(self, *_: object) -> None:
        self._unet.train()
