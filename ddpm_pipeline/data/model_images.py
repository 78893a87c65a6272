"""The images that a saved model is measured on: of its size and channels, batch by batch.

    data = open_measured(config, pipeline.unet)             what a command is given
    data = open_model_images("photos/", pipeline.unet, split="test")
    for x_0, labels in ModelBatches(data): ...              x_0 in [-1, 1], (B, C, H, W)
    described_changes(data)                                 what must be said beside the number

They are read as the training images were, as far as the model remembers that and nothing else is
asked for, and have the model's classes, by name. Numbers of a model are those of the images as it
sees them, so whatever was done to the files is said or refused here, once for all commands that
measure.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ddpm_pipeline.common import as_resolution, described_sides
from ddpm_pipeline.data.classes import with_classes
from ddpm_pipeline.data.conditions import with_conditioning
from ddpm_pipeline.data.decoding import Fit
from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.data.options import ReadingOptions
from ddpm_pipeline.data.reading_conditions import RememberedColumn
from ddpm_pipeline.data.sources.kinds import MeaninglessOptionError
from ddpm_pipeline.data.sources.library import import_datasets
from ddpm_pipeline.data.sources.row_files import LoadedDataset, files_of_source
from ddpm_pipeline.data.sources.shard_files import is_shards
from ddpm_pipeline.data.sources.shards import load_shards
from ddpm_pipeline.data.sources.stacks import StackError, not_of_model
from ddpm_pipeline.data.training_images import open_split
from ddpm_pipeline.data.value_range import with_scale
from ddpm_pipeline.networks import (
    Condition,
    Conditioning,
    ModelFacts,
    Told,
    facts_of,
    image_channels,
)

__all__ = [
    "ModelBatches",
    "check_unchanged_size",
    "described_changes",
    "open_measured",
    "open_model_images",
]

logger = logging.getLogger(__name__)

_MEANINGS = {
    "resized": "scaling smooths noise away, which makes them more likely",
    "cropped": "a part of each is not measured",
    "padded": "a border of one colour costs almost nothing, which lowers the mean over dimensions",
    "requantized": "values between the 256 levels were rounded to them",
}


class UNetConfig(Protocol):
    """The part of a UNet's config that says which images it is for."""

    sample_size: int | tuple[int, int]
    in_channels: int
    num_class_embeds: int | None


class _Measured(Protocol):
    """The options of a command that say what it measures, beside those of ``ReadingOptions``."""

    model: str
    data: str
    split: str | None
    dataset_config_name: str | None
    cache_dir: str | None
    verify_cache: bool


def open_measured(config: _Measured, unet: Any, **more: Any) -> ImageData:  # noqa: ANN401
    """Open the images that a command measures a saved model on.

    Arguments:
        config: The command's options.
        unet: The model's UNet.
        more: Options of ``open_model_images`` in the place of the config's; ``source`` and
            ``split`` too, where "validation" is what the model's training held out,
            and "training" the rest.
    Raises:
        ValueError, FileNotFoundError: As ``open_model_images`` and ``open_split``.
    """
    names = ("dataset_config_name", "cache_dir", "verify_cache")
    own = {name: getattr(config, name) for name in names}
    options = {"source": config.data, "split": config.split, "reading": config, **own, **more}
    source, split = options.pop("source"), options.pop("split")
    return open_split(
        config.model, split, lambda part: open_model_images(source, unet, split=part, **options)
    )


def open_model_images(
    source: str | os.PathLike,
    unet: Any,  # noqa: ANN401 (a UNet, wrapped or not, or its config)
    *,
    split: str | None = None,
    fit: Fit | Literal["exact"] | None = None,
    other_channels: Literal["convert", "refuse"] = "convert",
    labels: bool | None = None,
    reading: ReadingOptions | None = None,
    default_fit: Fit | Literal["exact"] = "resize",
    dataset_config_name: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    verify_cache: bool = False,
    name: str = "data",
) -> ImageData:
    """Open images in the size that a model was made for, with the numbers of its classes.

    Arguments:
        source, split, cache_dir, verify_cache: As for `open_images`; or shards, which are read as
            a whole.
        unet: The model's UNet, or its config.
        fit: What becomes of images of another size: as for `open_images`, or "exact", which
            refuses them; unless given, what `reading` or the model says, or else `default_fit`.
        other_channels: What becomes of images of other channels than the model's.
        labels: Whether to read class labels; unless given, if the model takes any.
        reading: Options to be read by; where they are None, those of the training images count,
            as the model remembers them.
        dataset_config_name: Which configuration of a data set of the Hub.
        name: The option that names the source, for messages.
    Raises:
        ValueError: If the model does not say how large its images are, or those of the source are
            refused, or have a class that the model does not know.
        FileNotFoundError: If there is no such source.
    """
    config = getattr(unet, "config", unet)
    resolution = as_resolution(config.sample_size, "sample_size of the model")
    channels = image_channels(config)
    facts, given = facts_of(unet), ReadingOptions.of(reading)
    _check_given(given, channels)
    remembered = ReadingOptions.from_dict(facts.reading or {})
    wanted = given.over(remembered)
    fit = fit or wanted.fit or default_fit
    conditioning = None if labels is False else facts.conditioned_on
    wanted = _with_conditions(wanted, given, facts.conditioned_on, needed=conditioning is not None)
    data = _open(
        _whole(source, split, dataset_config_name),
        given,
        resolution=resolution,
        channels=channels if other_channels == "convert" else None,
        fit="resize" if fit == "exact" else fit,
        split=None if is_shards(source) else split,
        labels=config.num_class_embeds is not None if labels is None else labels,
        cache_dir=cache_dir,
        verify_cache=verify_cache,
        options=wanted,
        condition_channels=None if conditioning is None else conditioning.channels or None,
    )
    if data.channels != channels:
        raise ValueError(
            f"{name}={source!r} has images of {data.channels} channel(s), the model makes images "
            f"of {channels}"
        )
    if fit == "exact":
        check_unchanged_size(data, f"{name}={source!r}", "; fit='resize' scales and crops them")
    named = f"{name}={str(source)!r}"
    data = with_scale(data, facts.scale, named, wanted.outside_range or "refuse")
    if conditioning is not None:
        data = with_conditioning(data, conditioning, named)
    return _with_model_classes(data, facts, config.num_class_embeds, named)


def _with_conditions(
    wanted: ReadingOptions, given: ReadingOptions, own: Conditioning | None, *, needed: bool
) -> ReadingOptions:
    """Give options with those conditions that the model has, if they are needed at all.

    Raises:
        ValueError: If some are given for a model that has none.
    """
    for name in ("condition_on", "condition_vector"):
        if own is None and getattr(given, name) is not None:
            raise ValueError(
                f"{name}={getattr(given, name)!r} has no meaning for a model that is not "
                "conditioned on any"
            )
    has_pictures = needed and own.channels > 0
    has_vector = needed and bool(own.columns)
    on = wanted.condition_on if has_pictures else None
    if on is not None and given.condition_on is None:
        on = RememberedColumn(on)  # no path is remembered
    return replace(
        wanted,
        condition_on=on,
        condition_vector=wanted.condition_vector if has_vector else None,
    )


def _check_given(given: ReadingOptions, channels: int) -> None:
    """Refuse options of training that a measurement cannot obey."""
    if given.channels not in {None, channels}:
        raise ValueError(f"channels must be {channels}, the model's, got {given.channels}")
    if given.center_crop is False:
        raise ValueError(
            "center_crop must be on: a measurement is of the middle of each image, not of a place "
            "drawn anew"
        )


def _whole(source: object, split: str | None, config_name: str | None) -> object:
    """Give what `open_images` opens: of shards and configurations of data sets, the data set."""
    if config_name is not None:
        data = import_datasets().load_dataset(source, config_name)
        return LoadedDataset(data, files_of_source(source))
    return load_shards(source, split) if is_shards(source) else source


def _open(
    source: object,
    given: ReadingOptions,
    *,
    options: ReadingOptions,
    labels: bool,
    **more: Any,  # noqa: ANN401 (options of open_images)
) -> ImageData:
    """Open images by these options, without columns that only the training data could have."""
    values = {
        "value_range": options.value_range,
        "image_column": options.image_column,
        "label_column": options.label_column if labels else None,
        "strict": options.strict_data,
        "background": options.background,
        "max_pixels": options.max_pixels,
        "tiff_bands": options.tiff_bands,
        "stack_pattern": options.stack_pattern,
        "depth": options.depth,
        "outside_range": options.outside_range,
        "condition_on": options.condition_on,
        "condition_vector": options.condition_vector,
    }
    known = {key: value for key, value in values.items() if value is not None}
    try:
        return open_images(source, labels=labels, **known, **more)
    except MeaninglessOptionError as error:
        if not hasattr(given, error.option) or getattr(given, error.option) is not None:
            raise
        fewer = replace(options, **{error.option: None})
        return _open(source, given, options=fewer, labels=labels, **more)
    except StackError as error:
        if given.stack_pattern is not None:
            raise
        raise not_of_model(error) from error
    except ValueError as error:
        if given.value_range is None and "outside value_range" in str(error):
            raise ValueError(
                f"{error}; that is the range of the training images: give the value_range of these"
            ) from error
        raise


def _with_model_classes(
    data: ImageData, facts: ModelFacts, embeddings: int | None, source: str
) -> ImageData:
    """Give images the model's numbers of their classes, and warn of those it cannot know."""
    if data.labels is None or embeddings is None:
        return data
    count = embeddings if facts.num_classes is None else facts.num_classes
    data = with_classes(
        data, facts.class_names, count, source, are_numbers=facts.num_classes is not None
    )
    present = data.labels.unique().tolist()
    if facts.num_classes is None and embeddings - 1 in present:
        logger.warning(
            "%s has images of class %d, the last one of a model that does not say what its "
            "classes are: in models of ddpm_pipeline that is the null class",
            source,
            embeddings - 1,
        )
    counts = facts.class_counts or ()
    if untrained := [facts.name_of(n) for n in present if counts and not counts[n]]:
        logger.warning(
            "%s has images of class %s, of which the model was trained on none",
            source,
            ", ".join(untrained),
        )
    return data


def check_unchanged_size(data: ImageData, name: str, remedy: str = "") -> None:
    """Refuse images that were scaled, cropped or padded when they were opened.

    Raises:
        ValueError: If any were; begins with `name` and ends with `remedy`.
    """
    if data.was_resized or data.was_cropped or data.was_padded:
        raise ValueError(
            f"{name} has images of another size than the model's "
            f"{described_sides(data.resolution)}{remedy}"
        )


def described_changes(data: ImageData) -> tuple[str, ...]:
    """Say what was done to images before they were measured, and what the number then means."""
    if not data.changes:
        return ()
    counts = ", ".join(f"{count} {name}" for name, count in data.changes.items())
    meanings = "".join(f"; {_MEANINGS[name]}" for name in data.changes if name in _MEANINGS)
    message = (
        f"images were changed before they were measured ({counts}), so the number is the bound of "
        f"the images as the model sees them and not of the files{meanings}. It compares only with "
        "numbers on images changed in the same way"
    )
    return (message,)


@dataclass(frozen=True)
class ModelBatches:
    """All images as a model sees them, with labels, batch by batch, as often as wanted.

    Arguments:
        data: The images.
        batch_size: How many are read at a time; the last batch may be smaller.
        conditioned: Whether what the images are conditioned on is told, or left out.
    """

    data: ImageData
    batch_size: int = 1024
    conditioned: bool = True

    def __len__(self) -> int:
        return math.ceil(len(self.data) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Told]]:
        for numbers in torch.arange(len(self.data)).split(self.batch_size):
            images, labels = self.data.batch(numbers)
            if isinstance(labels, Condition) and not self.conditioned:
                labels = labels.without(torch.ones(len(labels), dtype=torch.bool))
            yield self.data.model_values(images), labels
