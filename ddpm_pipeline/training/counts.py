"""Refusing to hold out, or to put into a batch, more images than there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["check_batch", "check_held_out", "held_out_size"]


def held_out_size(config: TrainingConfig) -> float:
    """Give the share of images to hold out, or their number."""
    return config.validation_size if config.validation_size < 1 else int(config.validation_size)


def check_held_out(config: TrainingConfig, count: int) -> None:
    """Refuse to hold out all images, or none."""
    size = held_out_size(config)
    if not 0 < (held_out := round(size * count) if size < 1 else size) < count:
        raise ValueError(
            f"validation_size={config.validation_size:g} of {count:,} images leaves "
            f"{max(0, count - held_out):,} for training and {held_out:,} for validation; both "
            f"need at least one: give validation_size from 1 to {count - 1:,}, or a fraction"
        )


def check_batch(config: TrainingConfig, count: int, world_size: int) -> None:
    """Refuse batches that are larger than the data."""
    size = config.train_batch_size
    if size * world_size > count:
        processes = "" if world_size == 1 else f" on each of {world_size} processes"
        fits = count // world_size
        remedy = f"give train_batch_size={fits} or less" if fits else "use fewer processes"
        raise ValueError(
            f"train_batch_size={size}{processes} is larger than the data: {count:,} images; "
            f"{remedy}"
        )
