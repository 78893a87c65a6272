"""What a run understood of its images, in one short block.

images      1,977 of ~/emoji, 64×64, 3 channels
held out      219 (validation_size=0.1 of the same images, seed 0)
classes         3: animals 700, flags 258, food 1,019
changed     1,977 resized, 12 RGBA to RGB
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ddpm_pipeline.data import ImageData
    from ddpm_pipeline.training.config import TrainingConfig
    from ddpm_pipeline.training.data import TrainingData

__all__ = ["classes_of", "describe_data"]


_NAMED = 12  # classes with their counts


def describe_data(config: TrainingConfig, data: TrainingData) -> str:
    """Describe the images, the classes, and what was done to them.

    Arguments:
        config: Resolved.
        data: The images.
    """
    lines = [f"images      {_count(data)} of {_source(config)}, {_shape(config, data)}"]
    if data.validation is not None:
        lines.append(f"held out    {len(data.validation):,} ({_held_out(config, data)})")
    if data.num_classes is not None:
        lines.append(f"classes     {classes_of(data)}")
    describe = getattr(data.train, "describe", None)
    if describe is not None:
        return "\n".join([*lines, describe()])
    return "\n".join([*lines, *_done_to(data.train)])


def _count(data: TrainingData) -> str:
    return "a stream" if data.length is None else f"{data.length:,}"


def _source(config: TrainingConfig) -> str:
    name = config.train_data_dir or config.dataset_name or "memory"
    return name if config.train_split is None else f"{name}, split {config.train_split!r}"


def _shape(config: TrainingConfig, data: TrainingData) -> str:
    plural = "" if data.channels == 1 else "s"
    return f"{config.resolution}×{config.resolution}, {data.channels} channel{plural}"


def _held_out(config: TrainingConfig, data: TrainingData) -> str:
    if data.held_out:
        share = f"validation_size={config.validation_size:g}"
        return f"{share} of the same images, seed {config.seed}"
    return config.validation_data_dir or (
        "memory" if config.validation_split is None else f"split {config.validation_split!r}"
    )


def classes_of(data: TrainingData) -> str:
    """Name the classes with the training images of each, as far as they are known."""
    train, count = data.train, data.num_classes
    if train is None or train.labels is None:
        return f"{count:,}"
    sizes = torch.bincount(train.labels, minlength=count).tolist()
    names = train.class_names or tuple(map(str, range(count)))
    parts = [f"{name} {size:,}" for name, size in zip(names, sizes, strict=False)]
    more = [f"… {count - _NAMED:,} more"] if count > _NAMED else []
    empty = [name for name, size in zip(names, sizes, strict=False) if size == 0]
    without = f" (no images of {', '.join(map(repr, empty[:_NAMED]))})" if empty else ""
    return f"{count:,}: {', '.join(parts[:_NAMED] + more)}{without}"


def _done_to(train: ImageData | None) -> list[str]:
    """Say what was changed and skipped."""
    if train is None:
        return []
    changed = [f"{count:,} {name}" for name, count in train.changes.items()]
    skipped = [f"{train.skipped:,} that could not be read"] if train.skipped else []
    lines = [("changed", changed), ("skipped", skipped)]
    return [f"{name:11} {', '.join(parts)}" for name, parts in lines if parts]
