"""Settling what a config leaves to the data and the machine: "auto", epochs, default rates.

    config = resolve(config, length=len(images), world_size=1, device=torch.device("cpu"))

A resolved config says all that a run does; resolving it again changes nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from ddpm_pipeline.networks import attention_warning, compiles_for_cuda, computes_in_bfloat16

if TYPE_CHECKING:
    from ddpm_pipeline.data import DataConditions
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["costly_resolution", "notices", "resolve"]


class _Rate(NamedTuple):
    """What the learning rate is by default: its peak, and the updates until it is reached."""

    peak: float
    warmup: int


_EPOCHS = 100  # of a run without a length
_EPOCHS_BETWEEN = 10  # two sample grids, or two savings of the model
_GRID_STEPS = 25  # of a sample grid
_RATES = {"muon": _Rate(2e-3, 25), "adamw": _Rate(1e-3, 100)}


def resolve(
    config: TrainingConfig, *, length: int | None, world_size: int, device: torch.device
) -> TrainingConfig:
    """Settle every "auto", every default that depends on others, and every number of epochs.

    Arguments:
        config: As it was given.
        length: How many images there are to train on; None for a stream, which has no epochs.
        world_size: How many processes train.
        device: What they train on.
    Raises:
        ValueError: If the device cannot compute in the precision, or by a graph.
    """
    if config.cuda_graph and (device.type != "cuda" or world_size > 1):
        raise ValueError(
            f"cuda_graph needs one process on CUDA, got {world_size} on {device.type}"
        )
    batch = config.train_batch_size * config.gradient_accumulation_steps * world_size
    num_updates = _num_updates(config, length, batch)
    per_epoch = 0 if length is None else math.ceil(length / batch)
    precision = _precision(config.mixed_precision, device)
    optimizer = _optimizer(config, precision)
    rate = _RATES[optimizer]  # from a pretrained model too: docs/decisions.md
    zero_snr = config.rescale_betas_zero_snr
    on_cuda = device.type == "cuda"
    compiles = _given(config.compile, on_cuda and not config.fsdp and compiles_for_cuda())
    return config.replace(
        max_train_steps=num_updates,
        rescale_betas_zero_snr=(
            config.prediction_type != "epsilon" if zero_snr == "auto" else zero_snr
        ),
        save_images_steps=_given(
            config.save_images_steps,
            _given(config.save_images_epochs, _EPOCHS_BETWEEN) * per_epoch,
        ),
        save_model_steps=_given(
            config.save_model_steps, _given(config.save_model_epochs, _EPOCHS_BETWEEN) * per_epoch
        ),
        validation_steps=_given(config.validation_steps, per_epoch),
        optimizer=optimizer,
        learning_rate=_given(config.learning_rate, rate.peak),
        lr_warmup_steps=_given(config.lr_warmup_steps, min(rate.warmup, num_updates // 2)),
        ddpm_num_inference_steps=_given(
            config.ddpm_num_inference_steps, min(_GRID_STEPS, config.ddpm_num_steps)
        ),
        mixed_precision=precision,
        compile=compiles,
        # Without compile diffusers' norms would bring every layer's output back into plain order.
        channels_last=_given(config.channels_last, on_cuda and compiles),
        deterministic=_given(config.deterministic, on_cuda),
    )


def _given(value: float | None, default: float) -> float:
    """Give the value, or the default if there is none."""
    return default if value is None else value


def _num_updates(config: TrainingConfig, length: int | None, batch: int) -> int:
    """Count the updates until the epochs or the steps end, whichever is first."""
    epochs, limits = config.num_epochs, [_given(config.max_train_steps, math.inf)]
    if epochs is None and config.max_train_steps is None:
        epochs = _EPOCHS
    if epochs is not None and length is not None:
        limits.append(math.ceil(epochs * length / batch))
    return int(min(limits))


def _optimizer(config: TrainingConfig, precision: str) -> str:
    """Settle the optimiser: Muon computes in bfloat16, on whole matrices."""
    if config.optimizer != "auto":
        return config.optimizer
    return "muon" if precision == "bf16" and not config.fsdp else "adamw"


def _precision(wanted: str, device: torch.device) -> str:
    """Settle the precision, and refuse one that the device cannot compute in."""
    if wanted == "auto":
        return "bf16" if computes_in_bfloat16(device) else "no"
    if wanted == "fp16" and device.type == "cpu":
        raise ValueError("mixed_precision 'fp16' needs a GPU; use bf16, no or auto on the CPU")
    if wanted == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ValueError(
            "mixed_precision 'bf16' is not supported by this GPU; use fp16, no or auto"
        )
    return wanted


def notices(config: TrainingConfig, given: DataConditions | None) -> list[str]:
    """Warn of what a resolved config asks for and its user may not want.

    Arguments:
        config: Of the run.
        given: What the images are conditioned on; None of nothing.
    """
    found = [costly_resolution(config)]
    if config.lr_warmup_steps > config.max_train_steps:
        found.append(
            f"lr_warmup_steps={config.lr_warmup_steps} is more than the run's "
            f"{config.max_train_steps} updates: the peak of the learning rate is never reached"
        )
    if config.random_flip and given is not None and given.columns:
        found.append(
            "random_flip mirrors images and leaves the numbers of condition_vector as they are, "
            "which is right of a brightness and wrong of an angle or a place; augment flip tells "
            "the model"
        )
    return [notice for notice in found if notice is not None]


def costly_resolution(config: TrainingConfig) -> str | None:
    """Warn of a resolution whose UNet will attend at a large image; None if it does not."""
    named = (config.pretrained_model_name_or_path, config.model_config_name_or_path)
    if any(name is not None for name in named) or config.model_size in {"ddpm", "adm"}:
        return None
    return attention_warning(config.resolution)
