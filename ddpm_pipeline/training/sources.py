"""Where the images of a run come from, by its options.

opened_source(config, source_of(config), config.train_split)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddpm_pipeline.data import ImageData, LoadedDataset, files_of_source, open_images

if TYPE_CHECKING:
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["crop_of", "opened_source", "shared_options", "source_of", "source_option"]


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
    source: object,
    split: str | None,
    channels: int | None = None,
    condition_channels: int | None = None,
) -> ImageData:
    """Open images for training, or for validation if the channels are given.

    Arguments:
        config: Of the run.
        source, split: As for ``open_images``.
        channels: Of the training images.
        condition_channels: Of the pictures that these are conditioned on; None without.
    """
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
