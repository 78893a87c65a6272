"""What a run starts with, made from its config: the UNet, what it learns, torch's switches."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ddpm_pipeline.common import PRIVATE_KEY, as_resolution, float32_arithmetic
from ddpm_pipeline.diffusion import (
    LEARNED_VARIANCES,
    ReverseProcess,
    TrainingObjective,
    check_reference_side,
    decoder_nats,
    loss_weights,
)
from ddpm_pipeline.likelihood import units_of
from ddpm_pipeline.networks import (
    check_halvings,
    check_network_config,
    embedding_width,
    facts_of,
    fresh_unet,
    input_options,
    unet_config,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusers import UNet2DModel

    from ddpm_pipeline.diffusion import NoiseSchedule
    from ddpm_pipeline.networks import Conditioning, ValueScale
    from ddpm_pipeline.schedulers import DDPMScheduler
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = [
    "backend_options",
    "clamped_as_trained",
    "deterministic_algorithms",
    "make_objective",
    "make_scheduler",
    "make_unet",
    "restored_scheduler",
    "wide_enough",
]


def make_unet(
    config: TrainingConfig,
    channels: int,
    num_classes: int | None,
    conditioning: Conditioning | None = None,
) -> UNet2DModel:
    """Make a fresh UNet, drawn from torch's global generator.

    Arguments:
        config: Of the run.
        channels: Of the images.
        num_classes: How many classes there are, or None without labels.
        conditioning: What it is conditioned on beside classes, or None.
    Raises:
        ValueError: If a given UNet config does not fit the images or the classes.
        OSError: If it cannot be read.
    """
    from diffusers import UNet2DModel

    return fresh_unet(_fitting_config(UNet2DModel, config, channels, num_classes, conditioning))


def _fitting_config(
    model: type[UNet2DModel],
    config: TrainingConfig,
    channels: int,
    num_classes: int | None,
    conditioning: Conditioning | None,
) -> dict[str, Any]:
    """Make the UNet's config for the images, or read the given one and check that it fits."""
    learned = config.variance_type in LEARNED_VARIANCES
    out_channels = 2 * channels if learned else channels
    told = input_options(channels, conditioning)
    if config.model_config_name_or_path is None:
        made = unet_config(
            config.model_size,
            resolution=config.resolution,
            channels=channels,
            out_channels=out_channels,
            num_classes=num_classes,
            dropout=config.dropout,
        )
        return wide_enough(made | told, conditioning)
    given = _read_config(model, config.model_config_name_or_path)
    check_network_config(given)
    given.pop(PRIVATE_KEY, None)  # facts of another model
    wanted = {
        "sample_size": config.resolution,
        **input_options(channels, conditioning),
        "out_channels": out_channels,
        "num_class_embeds": None if num_classes is None else num_classes + 1,
    }
    if isinstance(given.get("sample_size"), list):  # a square may be written as a pair
        given["sample_size"] = as_resolution(given["sample_size"], "sample_size")
    for key, value in wanted.items():
        if given.get(key) != value:
            raise ValueError(
                f"model_config_name_or_path has {key}={given.get(key)}, but training needs {value}"
            )
    if levels := given.get("block_out_channels"):
        what = "the UNet of model_config_name_or_path"
        check_halvings(config.resolution, len(levels) - 1, what)
    return wide_enough(given, conditioning)


def wide_enough(unet: dict[str, Any], conditioning: Conditioning | None) -> dict[str, Any]:
    """Give a config whose embeddings have place for all numbers of the vector.

    Raises:
        ValueError: If they have not.
    """
    count = 0 if conditioning is None else len(conditioning.columns)
    if 2 * count > (width := embedding_width(unet)):
        raise ValueError(
            f"condition_vector must have at most {width // 2} numbers for this UNet, whose "
            f"embeddings have {width}, got {count}"
        )
    return unet


def _read_config(model: type[UNet2DModel], name_or_path: str) -> dict[str, Any]:
    """Read a UNet's config from a file, a folder, or a model of the Hub."""
    path = Path(name_or_path).expanduser()
    if path.is_file():
        given = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(given, dict):
            raise ValueError(f"model_config_name_or_path={name_or_path!r} holds no object")
        return given
    subfolder = "unet" if (path / "unet").is_dir() or not path.exists() else None
    return model.load_config(name_or_path, subfolder=subfolder)


def clamped_as_trained(scheduler: DDPMScheduler, network: object) -> DDPMScheduler:
    """Have samples clamped at the largest magnitude that a network's images had, if not at 1.

    Arguments:
        scheduler: Which is changed.
        network: It, or its config, which remembers the scale of its values.
    """
    scale = facts_of(network).scale
    if scale is not None:
        scheduler.register_to_config(clip_sample_range=scale.largest)
    return scheduler


def make_scheduler(config: TrainingConfig) -> DDPMScheduler:
    """Make the scheduler that is trained for and saved with the model; config is resolved."""
    from ddpm_pipeline.schedulers import DDPMScheduler

    scheduler = DDPMScheduler(
        num_train_timesteps=config.ddpm_num_steps,
        beta_schedule=config.ddpm_beta_schedule,
        prediction_type=config.prediction_type,
        variance_type=config.variance_type,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=config.rescale_betas_zero_snr,
    )
    if config.ddpm_reference_side is None:
        return scheduler
    resolution, side = config.resolution, config.ddpm_reference_side
    check_reference_side(scheduler.schedule, resolution, side, "ddpm_reference_side")
    return scheduler.for_resolution(resolution, side)


def restored_scheduler(start: dict[str, Any]) -> DDPMScheduler:
    """Make the scheduler that a checkpoint's state holds, of a run from a pretrained model."""
    from ddpm_pipeline.schedulers import DDPMScheduler

    return DDPMScheduler.from_config(dict(start["scheduler"]))


def make_objective(
    config: TrainingConfig,
    schedule: NoiseSchedule,
    device: torch.device,
    scale: ValueScale | None = None,
) -> TrainingObjective:
    """Make the loss of a resolved config, with its table on the device.

    Arguments:
        config: Resolved.
        schedule: The noise schedule.
        device: Where batches are.
        scale: That of the model's values, whose levels or density the bound's last term is of.
    """
    units = {k: v for k, v in units_of(scale).items() if k != "log_unit"}  # a constant
    weights = loss_weights(
        schedule,
        prediction_type=config.prediction_type,
        loss_weighting=config.loss_weighting,
        snr_gamma=config.snr_gamma,
        p2_gamma=config.p2_gamma,
        p2_k=config.p2_k,
    )
    return TrainingObjective(
        ReverseProcess(schedule, config.prediction_type, config.variance_type),
        loss=config.loss,
        weights=None if config.loss_weighting == "uniform" else weights,
        vlb_weight=config.vlb_weight,
        device=device,
        decoder=partial(decoder_nats, **units),
    )


@contextmanager
def backend_options(config: TrainingConfig) -> Iterator[None]:
    """Set torch's process-wide switches as the config says, for the length of a run.

    Arguments:
        config: Of the run.
    """
    deterministic = deterministic_algorithms() if config.deterministic else nullcontext()
    with float32_arithmetic(tf32=config.allow_tf32), deterministic:
        yield


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Use only algorithms that give the same bits again, for the length of a block."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )
    # cuBLAS reads it when it is first used in a process, which may be after this block.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        torch.use_deterministic_algorithms(True)
        # Nothing here reads what it has not written, and filling costs a pass over each tensor.
        torch.utils.deterministic.fill_uninitialized_memory = False
        yield
    finally:
        enabled, warn_only, fills = before
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fills
