"""Where the images of a run come from, by its options.

opened_source(config, "train_data_dir", source_of(config), config.train_split).images
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ddpm_pipeline.data import (
    NO_STACKS,
    ImageData,
    LoadedDataset,
    MeaninglessOptionError,
    ReadingOptions,
    StackError,
    files_of_source,
    not_of_model,
    open_images,
)
from ddpm_pipeline.training.messages import naming_options

if TYPE_CHECKING:
    from collections.abc import Collection

    from ddpm_pipeline.data import DataConditions
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = [
    "Opened",
    "crop_of",
    "opened_source",
    "opened_validation",
    "reading_of",
    "shared_options",
    "source_of",
    "source_option",
]


class Opened(NamedTuple):
    """Images, and how they were read.

    Arguments:
        images: The images.
        config: With the options that they were read by.
        left_out: Which options of a model have no meaning for them, in words.
    """

    images: ImageData
    config: TrainingConfig
    left_out: tuple[str, ...] = ()


def crop_of(config: TrainingConfig) -> str:
    """Say how the longer side is cut, as ``open_images`` calls it."""
    return "center" if config.center_crop else "random"


def shared_options(config: TrainingConfig) -> dict[str, Any]:
    """Give the options of reading that ``open_images`` and ``open_stream`` have both."""
    names = ("background", "max_pixels", "tiff_bands")
    return {
        "resolution": config.resolution,
        "fit": config.fit,
        "labels": config.class_conditional,
        "image_column": config.image_column,
        "label_column": config.label_column,
        "strict": config.strict_data,
        **{n: getattr(config, n) for n in names if getattr(config, n) is not None},
    }


def reading_of(config: TrainingConfig) -> ReadingOptions:
    """Give what a model is to remember of how its training images were read."""
    reading, on = ReadingOptions.of(config), config.condition_on
    if on is not None and Path(on).expanduser().exists():  # which is the user's own
        reading = replace(reading, condition_on=None)
    is_stacked = reading.stack_pattern != NO_STACKS
    return reading if is_stacked else replace(reading, stack_pattern=None)


def source_option(config: TrainingConfig) -> str:
    """Name the option that names the training images."""
    return "dataset_name" if config.train_data_dir is None else "train_data_dir"


def source_of(config: TrainingConfig) -> Any:  # noqa: ANN401
    """Give what the images are opened from: a path, a name of the Hub, or a data set."""
    if config.train_data_dir is not None:
        return config.train_data_dir
    if config.dataset_config_name is None:
        return config.dataset_name
    try:
        from datasets import load_dataset
    except ImportError:
        raise ImportError("data sets need `pip install ddpm_pipeline[train]`") from None
    data = load_dataset(
        config.dataset_name,
        config.dataset_config_name,
        split=(config.train_split or "train") if config.streaming else None,
        streaming=config.streaming,
    )
    return LoadedDataset(data, files_of_source(config.dataset_name))


def opened_source(
    config: TrainingConfig,
    option: str,
    source: object,
    split: str | None,
    channels: int | None = None,
    condition_channels: int | None = None,
    remembered: Collection[str] = (),
) -> Opened:
    """Open images for training, or for validation if the channels are given.

    Arguments:
        config: Of the run.
        option: The one that names the images, for messages.
        source, split: As for ``open_images``.
        channels: Of the training images.
        condition_channels: Of the pictures that these are conditioned on; None without.
        remembered: Options of the config that a pretrained model says; those without a meaning
            for these images are left out.
    Raises:
        ValueError, FileNotFoundError, TypeError: As ``open_images``.
    """
    own = (source, split, channels, condition_channels)
    split_option = "validation_split" if option.startswith("validation") else "train_split"
    try:
        with naming_options(option, split_option):
            return Opened(_open(config, *own), config)
    except MeaninglessOptionError as error:
        if error.option not in remembered:
            raise
        fewer = config.replace(**{error.option: None})
        opened = opened_source(fewer, option, *own, remembered)
        said = f"{error}; it is the pretrained model's, and left out there"
        return opened._replace(left_out=(said, *opened.left_out))
    except StackError as error:
        if "stack_pattern" not in remembered:
            raise
        raise not_of_model(error) from error


def _open(
    config: TrainingConfig,
    source: object,
    split: str | None,
    channels: int | None,
    condition_channels: int | None,
) -> ImageData:
    """Open images as ``opened_source``, by all options."""
    validating = channels is not None
    return open_images(
        source,
        channels=channels or config.channels,
        crop="center" if validating else crop_of(config),
        value_range=config.value_range,
        split=split,
        num_classes=None if validating else config.num_classes,
        cache_dir=config.cache_dir,
        verify_cache=config.verify_cache,
        depth=config.depth,
        outside_range=config.outside_range,
        stack_pattern=config.stack_pattern,
        condition_on=config.condition_on,
        condition_vector=config.condition_vector,
        condition_channels=condition_channels,
        **shared_options(config),
    )


def opened_validation(
    config: TrainingConfig,
    channels: int,
    given: DataConditions | None,
    remembered: Collection[str],
) -> Opened | None:
    """Open the held-out images that have a place of their own, if there are any.

    Arguments:
        config: Of the run.
        channels: Of the training images.
        given: What these are conditioned on.
        remembered: Options that are a pretrained model's.
    """
    pictures = None if given is None else given.pictures
    own = (channels, None if pictures is None else pictures.channels, remembered)
    if config.validation_data_dir is not None:
        option, found = "validation_data_dir", config.validation_data_dir
        return opened_source(config, option, found, None, *own)
    if config.validation_split is not None:
        found = source_of(config.replace(streaming=False, max_train_steps=1))
        return opened_source(config, "validation_split", found, config.validation_split, *own)
    return None
