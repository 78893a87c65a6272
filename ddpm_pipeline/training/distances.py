"""Distances of a run's samples to real images, measured now and then on the same few draws.

    meter = DistanceMeter(config, data, accelerator)
    meter.measure(unet, scheduler, learner.autocast)       {"distance": ..., "kid": ..., ...}

The Fréchet distance of N samples is biased upwards by about 1 / N. Beside it stands that of N real
held-out images to the same reference, where there are as many, which a perfect model would have,
and KID, which has no bias, with its error. Sample i follows from (seed, i) alone, so the values of
a run compare with one another, whatever the number of processes.
"""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object

from ddpm_pipeline.common import stream_generator
from ddpm_pipeline.evaluation import (
    Moments,
    check_count,
    copy_test_of_features,
    frechet_distance,
    kid,
    load_features,
    reference_statistics,
)
from ddpm_pipeline.pipelines import DDPMPipeline
from ddpm_pipeline.training.previews import draw_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from accelerate import Accelerator
    from diffusers import UNet2DModel
    from torch import Tensor

    from ddpm_pipeline.data import ImageData
    from ddpm_pipeline.evaluation import ImageStatistics
    from ddpm_pipeline.networks import Condition
    from ddpm_pipeline.schedulers import DDPMScheduler
    from ddpm_pipeline.training.config import TrainingConfig
    from ddpm_pipeline.training.data import TrainingData

__all__ = ["DistanceMeter", "check_distances"]

_KEPT = 10_000  # features of real images, at most, that KID and the test of copying look at
_SUBSETS = 10


def check_distances(config: TrainingConfig, data: TrainingData) -> list[str]:
    """Refuse distances that could not be measured; say what will be missing beside them.

    Raises:
        ValueError: If there are too few images for the features, or none to compare with.
        ImportError: If the features need a library that is not installed.
    """
    reference = _reference(data)
    extractor = load_features(config.validate_fid_features)
    dim = extractor(reference.pictures(range(1))).shape[1]
    for name, count in (
        ("validate_fid_images", config.validate_fid_images),
        ("the images to compare with", len(reference)),
    ):
        try:
            check_count(count, dim)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    held_out = 0 if data.validation is None else len(data.validation)
    notices = []
    if data.train is None or held_out < config.validate_fid_images:
        notices.append(
            f"the distance of {config.validate_fid_images:,} samples is biased upwards, and there "
            f"are {held_out:,} held-out images: the distance of as many real images, by which to "
            "judge it, is left out; KID is unbiased"
        )
    if data.given is not None and data.validation is not None:
        notices.append(
            "the test of copying is left out: samples have the conditions of training images, and "
            "lie near them whether the model copies or not"
        )
    return notices


def _reference(data: TrainingData) -> ImageData:
    """Give the images that samples are compared with: the training images, or of streams others.

    Raises:
        ValueError: If there are none.
    """
    reference = data.validation if data.train is None else data.train
    if reference is None:
        raise ValueError(
            "validate_fid_steps needs images to compare with: a stream has none that are kept; "
            "give validation_data_dir"
        )
    return reference


class DistanceMeter:
    """Compares the same draws with real images, again and again.

    Arguments:
        config: Resolved.
        data: The images of the run.
        accelerator: Whose processes share the work; all call every method together.
    """

    def __init__(
        self, config: TrainingConfig, data: TrainingData, accelerator: Accelerator
    ) -> None:
        self._config, self._data, self._accelerator = config, data, accelerator
        self._extractor = load_features(config.validate_fid_features, accelerator.device)

    def measure(
        self,
        unet: UNet2DModel,
        scheduler: DDPMScheduler,
        autocast: Callable[[], AbstractContextManager],
    ) -> dict[str, float]:
        """Draw samples and compare them.

        Arguments:
            unet: In eval mode.
            scheduler: What it was trained for.
            autocast: Gives a context for the network's precision, not for that of the features.
        Returns:
            The distance, KID and its error; where there are held-out images beside training ones,
            and no conditions, the test of copying; the same on every process.
        """
        drawn = self._features(unet, scheduler, autocast)
        values = {"distance": frechet_distance(_moments(drawn), self._real.moments)}
        if self._distance_of_real is not None:
            values["distance_of_real"] = self._distance_of_real
        kept = self._real.features
        subsets = min(_SUBSETS, len(drawn) // 2, len(kept) // 2)
        if subsets >= 2:
            # The same cut each time, as the draws are the same.
            cut = stream_generator("distances", self._config.seed)
            found = kid(drawn, kept, num_subsets=subsets, generator=cut)
            values |= {"kid": found.value, "kid_standard_error": found.standard_error}
        return values | self._copying(drawn)

    def _copying(self, drawn: Tensor) -> dict[str, float]:
        """Test for copies; give nothing without held-out images beside training images.

        Nor of samples that have the conditions of real images, near which they lie in any case.
        """
        held_out = self._held_out
        if held_out is None or self._data.train is None or len(held_out.features) < 2:
            return {}
        if self._data.given is not None:
            return {}
        found = copy_test_of_features(drawn, self._real.features, held_out.features)
        return {
            "copied_share": found.share,
            "copied_share_standard_error": found.standard_error,
            "copied_p_value": found.p_value,
        }

    @cached_property
    def _real(self) -> ImageStatistics:
        return self._statistics(_reference(self._data))

    @cached_property
    def _held_out(self) -> ImageStatistics | None:
        return None if self._data.validation is None else self._statistics(self._data.validation)

    def _statistics(self, data: ImageData) -> ImageStatistics:
        cache = self._config.cache_dir
        return reference_statistics(
            data,
            self._extractor,
            num_kept=_KEPT,
            cache_dir=None if cache is None else Path(cache, "statistics"),
            progress=False,
        )

    @cached_property
    def _distance_of_real(self) -> float | None:
        """Give the distance of as many held-out images as there are samples, if there are."""
        count = self._config.validate_fid_images
        if self._data.train is None or self._held_out is None:
            return None
        held_out = self._held_out.features
        if len(held_out) < count:
            return None
        chosen = torch.randperm(len(held_out), generator=stream_generator("distances", 0, 0))
        return frechet_distance(_moments(held_out[chosen[:count]]), self._real.moments)

    def _features(
        self,
        unet: UNet2DModel,
        scheduler: DDPMScheduler,
        autocast: Callable[[], AbstractContextManager],
    ) -> Tensor:
        """Draw all samples, each process its share, and give their features to every process."""
        pipeline = DDPMPipeline(unet, scheduler)
        pipeline.set_progress_bar_config(disable=True)
        world, rank = self._accelerator.num_processes, self._accelerator.process_index
        count = self._config.validate_fid_images
        rounds = math.ceil(count / (world * self._config.train_batch_size))
        size = math.ceil(count / (world * rounds))
        parts: list[tuple[int, Any]] = []
        for first in range(rank * size, rounds * world * size, world * size):
            # As many on every process, for a sharded network computes on all of them or none.
            numbers = [i % count for i in range(first, first + size)]
            with autocast():
                images = draw_images(
                    pipeline,
                    numbers,
                    self._config,
                    self._labels(unet, numbers),
                    "distances",
                    **self._conditions(numbers),
                )
            features = self._extractor(torch.from_numpy(images).permute(0, 3, 1, 2))
            parts.append((first, features[: max(0, count - first)].cpu()))
        everything = sorted(gather_object(parts), key=lambda part: part[0])
        return torch.cat([features for _, features in everything])

    def _labels(self, unet: UNet2DModel, numbers: list[int]) -> list[int] | None:
        """Choose the classes of samples, as often as the reference has them."""
        if unet.config.num_class_embeds is None:
            return None
        return _reference(self._data).labels[self._chosen(numbers)].tolist()

    def _conditions(self, numbers: list[int]) -> dict[str, Condition]:
        """Choose what samples are conditioned on, as the reference is; {} for nothing."""
        given = _reference(self._data).given
        return {} if given is None else {"condition": given.of(self._chosen(numbers), None)}

    def _chosen(self, numbers: list[int]) -> Tensor:
        """Choose the real images that samples take their classes and conditions from."""
        count = len(_reference(self._data))
        order = torch.randperm(count, generator=stream_generator("distances", 0, 1))
        return order[torch.tensor(numbers) % count]


def _moments(features: Tensor) -> Moments:
    """Sum features up."""
    moments = Moments(features.shape[1])
    moments.update(features)
    return moments
