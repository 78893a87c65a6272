"""What a run understood of its images, in one short block.

images      1,977 of ~/emoji, split 'train', 64×64, 3 channels
held out    219 (validation_size=0.1 of the same images, seed 0)
classes     3: animals 700, flags 258, food 1,019 (the names of folders)
found       72×72 1,977; RGBA 1,900, P 77
changed     resized 1,977, RGBA to RGB 1,900, P to RGB 77
skipped     1 not an image (food/x.png)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ddpm_pipeline.common import described_sides
from ddpm_pipeline.data import facts_of_reading, printable

if TYPE_CHECKING:
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
    lines = {"images": f"{_count(data)} of {_source(config, data)}, {_shape(config, data)}"}
    if data.validation is not None:
        lines["held out"] = f"{len(data.validation):,} ({_held_out(config, data)})"
    if data.num_classes is not None:
        lines["classes"] = classes_of(data) + _labels_from(data)
    if (told := data.conditioning(config)) is not None:
        lines["conditions"] = str(told)
    if data.train is not None:
        lines |= facts_of_reading(data.train)
    return "\n".join(f"{heading:11} {text}" for heading, text in lines.items())


def _count(data: TrainingData) -> str:
    return "a stream" if data.length is None else f"{data.length:,}"


def _source(config: TrainingConfig, data: TrainingData) -> str:
    name = printable(config.train_data_dir or config.dataset_name or "memory")
    split = config.train_split or (None if data.train is None else data.train.found.split)
    return name if split is None else f"{name}, split {split!r}"


def _shape(config: TrainingConfig, data: TrainingData) -> str:
    plural = "" if data.channels == 1 else "s"
    return f"{described_sides(config.resolution)}, {data.channels} channel{plural}"


def _held_out(config: TrainingConfig, data: TrainingData) -> str:
    if data.held_out:
        share = f"validation_size={config.validation_size:g}"
        return f"{share} of the same images, seed {config.seed}"
    if config.validation_data_dir is not None:
        return printable(config.validation_data_dir)
    return "memory" if config.validation_split is None else f"split {config.validation_split!r}"


def _labels_from(data: TrainingData) -> str:
    origin = None if data.train is None else data.train.found.labels_from
    return "" if origin is None else f" ({printable(origin)})"


def classes_of(data: TrainingData) -> str:
    """Name the classes with the training images of each, as far as they are known."""
    train, count = data.train, data.num_classes
    if train is None or train.labels is None:
        return f"{count:,}"
    sizes = torch.bincount(train.labels, minlength=count).tolist()
    names = train.class_names or tuple(map(str, range(count)))
    parts = [f"{printable(name)} {size:,}" for name, size in zip(names, sizes, strict=False)]
    more = [f"… {count - _NAMED:,} more"] if count > _NAMED else []
    empty = [name for name, size in zip(names, sizes, strict=False) if size == 0]
    without = (
        f" (no images of {', '.join(repr(printable(name)) for name in empty[:_NAMED])})"
        if empty
        else ""
    )
    return f"{count:,}: {', '.join(parts[:_NAMED] + more)}{without}"
