"""What training starts from: its streams of randomness, and what "auto" means here and now."""

from __future__ import annotations

import math
import os
import zlib
from typing import TYPE_CHECKING

import torch
from torch import distributed

from ddpm_pipeline.data_order import seeded_generator
from ddpm_pipeline.optimizing import computes_in_bfloat16

if TYPE_CHECKING:
    from ddpm_pipeline.scheduler import DDPMScheduler
    from ddpm_pipeline.training_config import TrainingConfig

__all__ = [
    "join_restarted_processes",
    "make_scheduler",
    "resolve",
    "stream_generator",
    "use_backend_options",
]

_STREAMS = (
    "init",
    "timesteps",
    "noise",
    "labels",
    "flips",
    "network",
    "previews",
    "validation",
    "bound",
)
# Far from the small numbers that data_order uses in the same places of its keys.
STREAMS = {name: zlib.crc32(name.encode()) for name in _STREAMS}


def stream_generator(
    stream: str, seed: int, *place: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """The generator of one use of randomness at one place, such as (step, micro-step, rank)."""
    return seeded_generator(STREAMS[stream], seed, *place, device=device)


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


def join_restarted_processes() -> None:
    """Have workers that torchrun restarted meet away from their predecessors' addresses.

    On one machine torchrun keeps one store through all restarts, and gloo would find the addresses
    of the processes that are gone in it (torch 2.13). On several machines the restarts are not
    counted alike, and TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in torchrun's environment is the way.
    """
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    alone = os.environ.get("GROUP_WORLD_SIZE") == "1"
    if restart == "0" or not alone or distributed.is_initialized():
        return
    store, rank, world_size = next(distributed.rendezvous("env://"))
    distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        store=distributed.PrefixStore(f"restart-{restart}", store),
        rank=rank,
        world_size=world_size,
    )


def use_backend_options(config: TrainingConfig) -> None:
    """Set torch's process-wide switches as the config says."""
    torch.backends.cuda.matmul.allow_tf32 = config.allow_tf32
    torch.backends.cudnn.allow_tf32 = config.allow_tf32
    if config.deterministic:
        torch.use_deterministic_algorithms(True)


def make_scheduler(config: TrainingConfig) -> DDPMScheduler:
    """The scheduler that is trained for and saved with the model; config is resolved."""
    from ddpm_pipeline.scheduler import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=config.ddpm_num_steps,
        beta_schedule=config.ddpm_beta_schedule,
        prediction_type=config.prediction_type,
        variance_type=config.variance_type,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=config.rescale_betas_zero_snr,
    )
