"""Opening the images that a config names, to train on and to validate on.

    data = open_training_data(config)
    loader = data.loader(rank, world_size)      this process's batches

Images are decoded once and kept in a mapped file, or read again and again from a stream.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from ddpm_pipeline.common import key_of, process_state
from ddpm_pipeline.data import (
    BatchSource,
    DataConditions,
    ImageData,
    ImageLoader,
    KnownImages,
    ReadingOptions,
    class_counts,
    conditioning_of,
    named_bands,
    open_stream,
    split_validation,
    with_classes,
    with_conditioning,
    with_scale,
    without_gaps,
)
from ddpm_pipeline.networks import Conditioning, ModelFacts, ValueScale, listed
from ddpm_pipeline.training.counts import check_batch, check_held_out, held_out_size
from ddpm_pipeline.training.messages import naming_options
from ddpm_pipeline.training.paths import check_sources
from ddpm_pipeline.training.sources import (
    crop_of,
    opened_source,
    opened_validation,
    reading_of,
    shared_options,
    source_of,
    source_option,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["TrainingData", "data_from_images", "open_training_data"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Images to train on, and held-out ones.

    Arguments:
        loader: f(rank, world_size) gives a process's batches.
        length: How many images there are; None if that is not known.
        channels: Of the images.
        num_classes: How many classes there are, or None without labels.
        fingerprint: Hash of the content; of a stream, of the options it was opened with.
        validation: Held-out images, or None.
        class_names: Names of the classes, or None where they are numbers.
        class_counts: Training images of each class, or None where that is not known.
        reading: How the images were read; None if they were open already.
        train: The images to train on, unless they are a stream.
        held_out: How the held-out images were drawn from the same source by validation_size, as
            for ``KnownImages``; None if they were not.
        conditioned_on: What a pretrained model is conditioned on beside classes that they were
            fitted to; None where the images say it.
        left_out: Which options of a pretrained model have no meaning for which images, in words.
    """

    loader: Callable[[int, int], BatchSource]
    length: int | None
    channels: int
    num_classes: int | None
    fingerprint: str
    validation: ImageData | None
    class_names: tuple[str, ...] | None = None
    class_counts: tuple[int, ...] | None = None
    reading: ReadingOptions | None = None
    train: ImageData | None = None
    held_out: dict[str, Any] | None = None
    conditioned_on: Conditioning | None = None
    left_out: tuple[str, ...] = ()

    def facts(self, config: TrainingConfig) -> ModelFacts:
        """Give what a model that is trained on these images is to remember of them."""
        conditional, conditioning = self.num_classes is not None, self.conditioning(config)
        return ModelFacts(
            class_names=self.class_names,
            class_counts=self.class_counts,
            trains_null_class=self._trains_null_class(config) if conditional else None,
            reading=None if self.reading is None else self.reading.to_dict(),
            picture_bands=named_bands(self.channels, config.picture_bands),
            values=None if self.scale is None else self.scale.to_dict(),
            conditioning=None if conditioning is None else conditioning.to_dict(),
        )

    @property
    def given(self) -> DataConditions | None:
        """Give what the training images are conditioned on beside classes; None of nothing."""
        return None if self.train is None else self.train.given

    @property
    def shown(self) -> ImageData | None:
        """Give the images whose conditions sample grids show: held-out ones if there are any.

        Those of classes without training images are left out, which cannot be drawn.
        """
        found = self.validation
        if found is None or found.labels is None or self.class_counts is None:
            return self.train if found is None else found
        known = torch.tensor(self.class_counts)[found.labels] > 0
        return found.subset(known.nonzero().flatten()) if known.any() else self.train

    def conditioning(self, config: TrainingConfig) -> Conditioning | None:
        """Give what a model that is trained on these images is conditioned on beside classes."""
        return self.conditioned_on or conditioning_of(
            self.given, config.condition_upsampling, trains_null=config.condition_dropout > 0
        )

    @property
    def scale(self) -> ValueScale | None:
        """Give what a model's unit is in that of the images; None of bytes."""
        return None if self.train is None else self.train.scale

    def _trains_null_class(self, config: TrainingConfig) -> bool:
        """Tell whether images are told no class, as those without their conditions are."""
        drops_conditions = self.given is not None and config.condition_dropout > 0
        return config.label_dropout > 0 or drops_conditions

    def notes(self) -> Iterator[str]:
        """Yield what there is to say of the options, the classes and the held-out images."""
        yield from self.left_out
        names = self.class_names or tuple(map(str, range(self.num_classes or 0)))
        counts = self.class_counts or ()
        if empty := [name for name, count in zip(names, counts, strict=False) if count == 0]:
            yield (
                f"there are no training images of {len(empty)} of the {len(names)} classes, which "
                f"cannot be drawn: {listed(empty)}"
            )
        known = self.known_images if self.validation is not None else None
        if known is not None and (copies := known.validated_on_training_images):
            yield (
                f"{copies:,} of the {len(self.validation):,} held-out images are training images "
                "too, so validation says how well the model remembers them as well"
            )

    @property
    def fingerprints(self) -> dict[str, str]:
        """Give the fingerprints of all images, by what they are for."""
        named = {"train_data": self.fingerprint}
        if self.validation is not None:
            named["validation_data"] = self.validation.fingerprint
        return named

    @cached_property
    def known_images(self) -> KnownImages | None:
        """Hash the images once, so that the model's measurements know them again; no stream's."""
        if self.train is None:
            return None
        return KnownImages.of_training(self.train, self.validation, self.held_out)


def open_training_data(config: TrainingConfig, remembered: Collection[str] = ()) -> TrainingData:
    """Open the images that the config names.

    Arguments:
        config: Of the run.
        remembered: A pretrained model's options: each is left out where it has no meaning.
    Raises:
        ValueError: If no data are named, or they do not fit the options.
        FileNotFoundError: If they do not exist.
    """
    check_sources(config)
    opening = _open_stream if config.streaming else _open_images
    return opening(config, remembered)


def _open_images(config: TrainingConfig, remembered: Collection[str]) -> TrainingData:
    """Open images that are kept whole, and the held-out images among or beside them."""
    option = source_option(config)
    with naming_options(option, "train_split"):
        own = (option, source_of(config), config.train_split)
        found = opened_source(config, *own, remembered=remembered)
        train = _numbered(config, found.images)
    about = {"reading": reading_of(found.config), "left_out": found.left_out}
    if config.validation_size:
        check_held_out(config, len(train))
        size = held_out_size(config)
        parts = split_validation(train, size, config.seed)
        held_out = {"size": size, "seed": config.seed, "split": config.train_split}
        return replace(data_from_images(config, *parts), held_out=held_out, **about)
    other = opened_validation(config, train.channels, train.given, remembered)
    validation = None if other is None else other.images
    about["left_out"] += () if other is None else other.left_out
    return replace(data_from_images(config, train, validation), **about)


def data_from_images(
    config: TrainingConfig, train: ImageData, validation: ImageData | None = None
) -> TrainingData:
    """Train on images that are open already, in batches as the config says.

    Raises:
        ValueError: If the held-out images have a class that the training images have not, or
            images have both labels and numbers.
    """
    _check_one_embedding(train)
    train = _numbered(config, train)
    if validation is not None:
        validation = _with_classes(config, validation, train.class_names, train.num_classes)
        name = _validation_option(config)
        validation = with_scale(validation, train.scale, name, config.outside_range)
        if train.given is not None:
            wanted = conditioning_of(train.given, config.condition_upsampling, trains_null=True)
            validation = with_conditioning(validation, wanted, name)

    def loader(rank: int, world_size: int) -> ImageLoader:
        check_batch(config, len(train), world_size)
        return ImageLoader(
            train,
            batch_size=config.train_batch_size,
            seed=config.seed,
            rank=rank,
            world_size=world_size,
        )

    return TrainingData(
        loader,
        len(train),
        train.channels,
        train.num_classes,
        train.fingerprint,
        validation,
        class_names=train.class_names,
        class_counts=class_counts(train),
        train=train,
    )


def _check_one_embedding(train: ImageData) -> None:
    """Refuse classes beside numbers, for which a network has one embedding."""
    if train.labels is not None and train.given is not None and train.given.columns:
        raise ValueError(
            "the training data must have labels or condition_vector, got both, "
            f"{train.num_classes} classes and {', '.join(train.given.columns)}: a UNet2DModel has "
            "one embedding, for classes or for numbers; give classes as columns of numbers, or "
            "open the images with labels=False"
        )


def _numbered(config: TrainingConfig, train: ImageData) -> ImageData:
    """Leave no gaps between the numbers of classes, unless as many classes are asked for."""
    numbered = train if config.num_classes is not None else without_gaps(train)
    if numbered is not train and process_state().is_main_process:
        count = numbered.num_classes
        logger.warning(
            "the class labels leave gaps: the %d classes %s are numbered 0 to %d in the model and "
            "called by their labels; num_classes=%d keeps the labels as numbers",
            *(count, listed(numbered.class_names), count - 1, train.num_classes),
        )
    return numbered


def _with_classes(
    config: TrainingConfig,
    validation: ImageData,
    names: tuple[str, ...] | None,
    num_classes: int | None,
) -> ImageData:
    """Give held-out images the numbers that the classes have in training."""
    if num_classes is None:
        return validation
    return with_classes(validation, names, num_classes, _validation_option(config))


def _validation_option(config: TrainingConfig) -> str:
    """Name the option that names the held-out images, with its value."""
    options = ("validation_data_dir", "validation_split")
    given = [f"{o}={getattr(config, o)!r}" for o in options if getattr(config, o) is not None]
    return (*given, "validation_data")[0]


def _open_stream(config: TrainingConfig, remembered: Collection[str]) -> TrainingData:
    """Open a stream, and the held-out images beside it."""
    channels = config.channels or 3

    def loader(rank: int, world_size: int) -> BatchSource:
        with naming_options(source_option(config), "train_split"):
            return open_stream(
                source_of(config),
                batch_size=config.train_batch_size,
                channels=channels,
                crop=crop_of(config),
                split=config.train_split,
                seed=config.seed,
                rank=rank,
                world_size=world_size,
                shuffle_buffer=config.shuffle_buffer,
                num_classes=config.num_classes,
                **shared_options(config),
            )

    # Opened once to find the classes; each process then opens its own share.
    stream = loader(0, 1) if config.class_conditional else None
    num_classes, names = (stream.num_classes, stream.class_names) if stream else (None, None)
    other = opened_validation(config, channels, None, remembered)
    validation = None if other is None else other.images
    if validation is not None:
        validation = _with_classes(config, validation, names, num_classes)
    return TrainingData(
        loader,
        None,
        channels,
        num_classes,
        key_of("stream", config.train_split, config.shuffle_buffer),
        validation,
        names,
        reading=reading_of(config),
        left_out=() if other is None else other.left_out,
    )
