"""``train``, and ``dry_run``, which only says what ``train`` would do.

    result = train(TrainingConfig(train_data_dir="photos/", output_dir="model"))
    DDPMPipeline.from_pretrained(result.output_dir)

Both meet the other processes, open the images and resolve the config; then ``Trainer`` does the
run, or ``describe_run`` counts what it would cost.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import distributed

from ddpm_pipeline.common import on_main
from ddpm_pipeline.data import batches_on
from ddpm_pipeline.networks import is_sharded_run
from ddpm_pipeline.training.callbacks import Callbacks
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.conflicts import check_guidance
from ddpm_pipeline.training.data import TrainingData, data_from_images, open_training_data
from ddpm_pipeline.training.description import describe_data
from ddpm_pipeline.training.few_images import check_channels, is_chosen
from ddpm_pipeline.training.forecast import DryRun, describe_run
from ddpm_pipeline.training.given import derived_options
from ddpm_pipeline.training.learner import Learner
from ddpm_pipeline.training.own_start import OwnStart
from ddpm_pipeline.training.processes import own_accelerator
from ddpm_pipeline.training.rehearsal import UpdateTime, measure_update, try_threads
from ddpm_pipeline.training.resolving import notices, resolve
from ddpm_pipeline.training.setup import backend_options
from ddpm_pipeline.training.start import Start, open_start
from ddpm_pipeline.training.storage.folder import RunFolder
from ddpm_pipeline.training.storage.longer import settled_as_before
from ddpm_pipeline.training.trainer import Trainer, TrainingResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from accelerate import Accelerator
    from diffusers import UNet2DModel
    from torch import nn

    from ddpm_pipeline.data import ImageData
    from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["dry_run", "train"]

logger = logging.getLogger(__name__)


def train(
    config: TrainingConfig,
    *,
    train_data: ImageData | None = None,
    validation_data: ImageData | None = None,
    unet: nn.Module | None = None,
    on_log: Callable[[int, dict[str, float]], object] | None = None,
    on_save: Callable[[int, Path], object] | None = None,
    should_stop: Callable[[int], bool] | None = None,
) -> TrainingResult:
    """Train a model, or continue the run that is in ``output_dir``.

    On SIGTERM or SIGINT the run ends its step, saves a checkpoint and returns. A push to the Hub
    that fails is not an error; the result says why it failed. An Accelerator that the process has
    already is left as it is.

    Arguments:
        config: All options.
        train_data: Images that are open already, in place of those the config names.
        validation_data: Held-out images, with train_data.
        unet: A network of one's own, which is trained in place: any module that is called as a
            ``UNet2DModel`` is. A model of diffusers is saved in its pipeline, the weights of any
            other module as network.safetensors.
        on_log: f(step, values) after every entry of metrics.jsonl, on the main process.
        on_save: f(step, folder) after the model or a checkpoint is saved there, on the main
            process.
        should_stop: f(step) after every update, on every process. If it is true on any, the run
            ends as on a signal, and the same call goes on from there.
    Raises:
        ValueError: If an option or the data do not fit, or output_dir holds another run.
        FileExistsError: If output_dir holds a run that must not be overwritten.
        FloatingPointError: If the loss is not finite.
        OSError: If something cannot be read or written.
    """
    keeps_group = distributed.is_initialized()
    with own_accelerator(config) as accelerator:
        run = _prepare(config, accelerator, train_data, validation_data, unet, continues=True)
        _announce(run, accelerator)
        trainer = Trainer(
            run.config,
            accelerator,
            run.data,
            derived=run.derived,
            callbacks=Callbacks(on_log=on_log, on_save=on_save, should_stop=should_stop),
            keeps_group=keeps_group,
            start=run.start,
        )
        _announce_start(run, accelerator)
        with backend_options(run.config):
            return trainer.run()


def dry_run(
    config: TrainingConfig,
    *,
    train_data: ImageData | None = None,
    validation_data: ImageData | None = None,
    measure: bool = True,
) -> DryRun:
    """Count what ``train`` would do and need; write nothing but the image cache.

    Arguments:
        config, train_data, validation_data: As for ``train``.
        measure: Whether to make a few updates, whose time tells that of the run.
    Raises:
        ValueError, OSError: As ``train``.
    """
    with own_accelerator(config) as accelerator:
        run = _prepare(config, accelerator, train_data, validation_data)
        unet = run.start.unet(run.config, run.data)
        numbers = describe_run(run.config, run.data, accelerator.num_processes, unet)
        scheduler = run.start.scheduler(run.config)
        _announce_start(run, accelerator)
        if not measure:
            return numbers
        with backend_options(run.config):
            return numbers.timed(_measure(run, accelerator, unet, scheduler))


class _Run(NamedTuple):
    """A resolved config, the options in it that nobody gave, the images, and the start."""

    config: TrainingConfig
    derived: tuple[str, ...]
    data: TrainingData
    start: Start


def _prepare(
    config: TrainingConfig,
    accelerator: Accelerator,
    train_data: ImageData | None,
    validation_data: ImageData | None,
    unet: nn.Module | None = None,
    *,
    continues: bool = False,
) -> _Run:
    """Open the images and resolve the config.

    What nobody gave is settled as in the run that is gone on from, if there is one.
    """
    state = _last_state(config, accelerator) if continues else None
    start = open_start(config, accelerator, state) if unet is None else OwnStart(unet, config)
    config = start.settled(config)
    data = start.renumbered(config, _open(config, start, train_data, validation_data))
    check_channels(config, data.channels)
    given = config.replace(fsdp=is_sharded_run(accelerator, asked=config.fsdp))
    place = {
        "length": data.length,
        "world_size": accelerator.num_processes,
        "device": accelerator.device,
    }
    config = resolve(given, **place)
    derived = derived_options(given, config)
    if state is not None:
        config = resolve(settled_as_before(given, derived, state), **place)
    if data.length is not None:
        data.loader(0, accelerator.num_processes)  # refuses batches larger than the data
    missing = _check_measurements(config, data)
    if accelerator.is_main_process:
        for notice in (*notices(config, data.given), *data.notes(), *missing):
            logger.warning(notice)
    return _Run(config, (*derived, *start.taken), data, start)


def _last_state(config: TrainingConfig, accelerator: Accelerator) -> dict[str, Any] | None:
    """Read the state of the checkpoint that a run would go on from, on all processes."""
    folder = RunFolder(config.output_dir)
    return on_main(lambda: folder.last_state(config), accelerator)


def _open(
    config: TrainingConfig,
    start: Start,
    train_data: ImageData | None,
    validation_data: ImageData | None,
) -> TrainingData:
    """Open the images, unless they are open already."""
    if train_data is not None:
        return data_from_images(config, train_data, validation_data)
    return open_training_data(config, start.taken)


def _check_measurements(config: TrainingConfig, data: TrainingData) -> list[str]:
    """Refuse measurements that the images do not allow; say what will be missing of them."""
    has = {"has_classes": data.num_classes is not None, "has_conditions": data.given is not None}
    check_guidance(config, **has)
    if config.validate_bound_steps and data.validation is None:
        raise ValueError(
            f"validate_bound_steps={config.validate_bound_steps} needs held-out images: give "
            "validation_data"
        )
    if is_chosen(config) and config.best_by != "distance" and data.validation is None:
        raise ValueError(
            f"keep best and early_stop by {config.best_by} need held-out images; give them, or "
            "best_by distance"
        )
    if not config.validate_fid_steps:
        return []
    from ddpm_pipeline.training.distances import check_distances  # with all it needs

    return check_distances(config, data)


def _announce(run: _Run, accelerator: Accelerator) -> None:
    """Say what a run is about to do, with what, on the main process."""
    if not accelerator.is_main_process:
        return
    logger.info("%s", describe_data(run.config, run.data))
    count = accelerator.num_processes
    processes = "1 process" if count == 1 else f"{count} processes"
    logger.info("training on %s (%s)", processes, accelerator.device.type)


def _announce_start(run: _Run, accelerator: Accelerator) -> None:
    """Say what the run starts from, once its network is made, on the main process."""
    lines = run.start.describe(run.config, run.data)
    if lines and accelerator.is_main_process:
        logger.info("%s", "\n".join(f"{heading:11} {text}" for heading, text in lines.items()))


def _measure(
    run: _Run, accelerator: Accelerator, unet: UNet2DModel, scheduler: DDPMScheduler
) -> UpdateTime:
    """Make a few updates of a network that is thrown away."""
    config, data = run.config, run.data
    learner = Learner(config, scheduler.schedule, unet, accelerator)
    loader = data.loader(accelerator.process_index, accelerator.num_processes)
    threads = torch.get_num_threads()
    try:
        if config.num_threads is not None:
            torch.set_num_threads(config.num_threads)
        learner.unet.train()
        try_threads(config, learner, data)
        with batches_on(loader, accelerator.device) as batches:
            return measure_update(config, learner, batches)
    finally:
        torch.set_num_threads(threads)
        learner.unwrap()
