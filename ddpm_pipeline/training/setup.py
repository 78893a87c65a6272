"""What training starts from: its streams of randomness, and what "auto" means here and now."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ddpm_pipeline.diffusion import LEARNED_VARIANCES
from ddpm_pipeline.networks import (
    attention_warning,
    computes_in_bfloat16,
    fresh_unet,
    unet_config,
)

if TYPE_CHECKING:
    from diffusers import UNet2DModel

    from ddpm_pipeline.schedulers import DDPMScheduler
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["costly_resolution", "make_scheduler", "make_unet", "resolve", "use_backend_options"]


def costly_resolution(config: TrainingConfig) -> str | None:
    """A warning if the UNet made for the resolution will attend at a large image, or None."""
    if config.model_config_name_or_path is not None or config.model_size == "ddpm":
        return None
    return attention_warning(config.resolution)


def make_unet(config: TrainingConfig, channels: int, num_classes: int | None) -> UNet2DModel:
    """A fresh UNet for the training config, drawn from torch's global generator.

    Raises:
        ValueError: If a given UNet config does not fit the images or the classes.
        OSError: If it cannot be read.
    """
    from diffusers import UNet2DModel

    return fresh_unet(_fitting_config(UNet2DModel, config, channels, num_classes))


def _fitting_config(
    model: type[UNet2DModel], config: TrainingConfig, channels: int, num_classes: int | None
) -> dict[str, Any]:
    """The config of the model made for the images, or the given one if it fits them."""
    learned = config.variance_type in LEARNED_VARIANCES
    out_channels = 2 * channels if learned else channels
    if config.model_config_name_or_path is None:
        return unet_config(
            config.model_size,
            resolution=config.resolution,
            channels=channels,
            out_channels=out_channels,
            num_classes=num_classes,
            dropout=config.dropout,
        )
    given = _read_config(model, config.model_config_name_or_path)
    wanted = {
        "sample_size": config.resolution,
        "in_channels": channels,
        "out_channels": out_channels,
        "num_class_embeds": None if num_classes is None else num_classes + 1,
    }
    for key, value in wanted.items():
        if given.get(key) != value:
            raise ValueError(
                f"model_config_name_or_path has {key}={given.get(key)}, but training needs {value}"
            )
    return given


def _read_config(model: type[UNet2DModel], name_or_path: str) -> dict[str, Any]:
    path = Path(name_or_path)
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    subfolder = "unet" if (path / "unet").is_dir() or not path.exists() else None
    return model.load_config(name_or_path, subfolder=subfolder)


# What depends on the data and the machine.

# Peak learning rate, and updates until it is reached.
_RATES = {"muon": (2e-3, 25), "adamw": (1e-3, 100)}


def resolve(
    config: TrainingConfig, *, length: int | None, world_size: int, device: torch.device
) -> TrainingConfig:
    """The config with every "auto" and every number of epochs settled.

    Arguments:
        length: How many images there are to train on; None for a stream, which has no epochs.
        world_size: How many processes train.
        device: What they train on.

    Raises:
        ValueError: If the precision is not to be had on the device.
    """
    batch = config.train_batch_size * config.gradient_accumulation_steps * world_size
    per_epoch = 0 if length is None else math.ceil(length / batch)
    limits = [config.max_train_steps or math.inf]
    if config.num_epochs is not None and length is not None:
        limits.append(math.ceil(config.num_epochs * length / batch))
    images, model = config.save_images_steps, config.save_model_steps
    validation = config.validation_steps
    precision = _precision(config.mixed_precision, device)
    optimizer = config.optimizer
    if optimizer == "auto":  # Muon computes in bfloat16, on whole matrices
        optimizer = "muon" if precision == "bf16" and not config.fsdp else "adamw"
    rate, warmup = _RATES[optimizer]
    num_updates = int(min(limits))
    if config.lr_warmup_steps is not None:
        warmup = config.lr_warmup_steps
    return config.replace(
        max_train_steps=num_updates,
        rescale_betas_zero_snr=(
            config.prediction_type != "epsilon"
            if config.rescale_betas_zero_snr == "auto"
            else config.rescale_betas_zero_snr
        ),
        save_images_steps=config.save_images_epochs * per_epoch if images is None else images,
        save_model_steps=config.save_model_epochs * per_epoch if model is None else model,
        validation_steps=per_epoch if validation is None else validation,
        optimizer=optimizer,
        learning_rate=rate if config.learning_rate is None else config.learning_rate,
        lr_warmup_steps=min(warmup, num_updates // 2),
        mixed_precision=precision,
    )


def _precision(wanted: str, device: torch.device) -> str:
    if wanted == "auto":
        return "bf16" if computes_in_bfloat16(device) else "no"
    if wanted == "fp16" and device.type == "cpu":
        raise ValueError("mixed_precision 'fp16' needs a GPU; use bf16, no or auto on the CPU")
    if wanted == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ValueError(
            "mixed_precision 'bf16' is not supported by this GPU; use fp16, no or auto"
        )
    return wanted


def use_backend_options(config: TrainingConfig) -> None:
    """Set torch's process-wide switches as the config says."""
    torch.backends.cuda.matmul.allow_tf32 = config.allow_tf32
    torch.backends.cudnn.allow_tf32 = config.allow_tf32
    if config.deterministic:
        torch.use_deterministic_algorithms(True)


def make_scheduler(config: TrainingConfig) -> DDPMScheduler:
    """The scheduler that is trained for and saved with the model; config is resolved."""
    from ddpm_pipeline.schedulers import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=config.ddpm_num_steps,
        beta_schedule=config.ddpm_beta_schedule,
        prediction_type=config.prediction_type,
        variance_type=config.variance_type,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=config.rescale_betas_zero_snr,
    )
