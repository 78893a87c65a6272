"""``train``, and ``dry_run``, which only says what ``train`` would do.

    result = train(TrainingConfig(train_data_dir="photos/", output_dir="model"))
    DDPMPipeline.from_pretrained(result.output_dir)

Both meet the other processes, open the images and resolve the config; then ``Trainer`` does the
run, or ``describe_run`` counts what it would cost.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator

from ddpm_pipeline.common import join_restarted_processes
from ddpm_pipeline.networks import is_sharded_run, without_accelerates_own
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.data import TrainingData, data_from_images, open_training_data
from ddpm_pipeline.training.forecast import DryRun, describe_run
from ddpm_pipeline.training.log import tracker_options
from ddpm_pipeline.training.resolving import costly_resolution, resolve
from ddpm_pipeline.training.setup import use_backend_options
from ddpm_pipeline.training.trainer import Trainer, TrainingResult

if TYPE_CHECKING:
    from ddpm_pipeline.data import ImageData

__all__ = ["dry_run", "train"]

logger = logging.getLogger(__name__)


def train(
    config: TrainingConfig,
    *,
    train_data: ImageData | None = None,
    validation_data: ImageData | None = None,
) -> TrainingResult:
    """Train a model, or continue the run that is in ``output_dir``.

    On SIGTERM or SIGINT the run ends its step, saves a checkpoint and returns. A push to the Hub
    that fails is not an error; the result says why it failed.

    Arguments:
        config: All options.
        train_data: Images that are open already, in place of those the config names.
        validation_data: Held-out images, with train_data.
    Raises:
        ValueError: If an option or the data do not fit, or output_dir holds another run.
        FileExistsError: If output_dir holds a run that must not be overwritten.
        FloatingPointError: If the loss is not finite.
        OSError: If something cannot be read or written.
    """
    accelerator, config, data = _prepare(config, train_data, validation_data)
    if accelerator.is_main_process:
        count = accelerator.num_processes
        processes = "1 process" if count == 1 else f"{count} processes"
        logger.info("training on %s (%s)", processes, accelerator.device.type)
    return Trainer(config, accelerator, data).run()


def dry_run(
    config: TrainingConfig,
    *,
    train_data: ImageData | None = None,
    validation_data: ImageData | None = None,
) -> DryRun:
    """Count what ``train`` would do and need; write nothing but the image cache.

    Arguments and Raises are those of ``train``.
    """
    accelerator, config, data = _prepare(config, train_data, validation_data)
    if data.length is not None:
        data.loader(0, accelerator.num_processes)  # refuses batches that are larger than the data
    return describe_run(config, data, accelerator.num_processes)


def _prepare(
    config: TrainingConfig, train_data: ImageData | None, validation_data: ImageData | None
) -> tuple[Accelerator, TrainingConfig, TrainingData]:
    """Meet the other processes, open the images, resolve the config, set torch's switches."""
    join_restarted_processes()
    with without_accelerates_own():
        accelerator = Accelerator(
            # Without `cpu`, accelerate does not see the processes that torchrun starts on CPUs.
            cpu=not torch.accelerator.is_available(),
            mixed_precision="no",
            **tracker_options(config),
        )
    if train_data is None:
        data = open_training_data(config)
    else:
        data = data_from_images(config, train_data, validation_data)
    config = config.replace(fsdp=is_sharded_run(accelerator, asked=config.fsdp))
    world_size, device = accelerator.num_processes, accelerator.device
    config = resolve(config, length=data.length, world_size=world_size, device=device)
    use_backend_options(config)
    if accelerator.is_main_process:
        if warning := costly_resolution(config):
            logger.warning(warning)
        for note in data.notes():
            logger.warning(note)
    return accelerator, config, data
