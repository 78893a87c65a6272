"""Bits per dimension of held-out images, for the report of an evaluation.

    data = open_held_out(config, sampler)
    measure_bound(config, sampler, data)      {"bits_per_dim": ..., "standard_error": ..., ...}

It is the bound of the model's full chain of T steps, whatever the images are drawn with.
"""

from __future__ import annotations

from typing import Any

from ddpm_pipeline.common import shared_accelerator, stream_generator
from ddpm_pipeline.data import (
    ImageData,
    described_overlap,
    open_measured,
    source_name,
)
from ddpm_pipeline.evaluation.compared_images import random_subset
from ddpm_pipeline.evaluation.config import EvaluateConfig
from ddpm_pipeline.likelihood import units_of, variational_bound
from ddpm_pipeline.pipelines import ImageSampler
from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["held_out_source", "measure_bound", "open_held_out"]

_NUM_IMAGES = 256


def open_held_out(config: EvaluateConfig, sampler: ImageSampler) -> ImageData | None:
    """Open the images that the bound is measured on; give None if it is not asked for.

    Raises:
        ValueError: If the images do not fit the model's, or are fewer than asked for.
    """
    if config.bound_images == 0:
        return None
    return _open_held_out(config, sampler, *held_out_source(config))


def measure_bound(
    config: EvaluateConfig, sampler: ImageSampler, data: ImageData
) -> dict[str, Any]:
    """Measure the bound on the held-out images, and say on what, as JSON values."""
    source, split = held_out_source(config)
    images, classes = data.batch(range(len(data)))
    scheduler = sampler.saved_scheduler
    if not isinstance(scheduler, DDPMScheduler):
        scheduler = DDPMScheduler.from_config(scheduler.config)
    report = variational_bound(
        sampler.pipe.unet,
        scheduler,
        data.model_values(images),
        class_labels=classes,
        **units_of(data.scale),
        num_timestep_samples=config.bound_timesteps,
        generator=stream_generator("evaluated_bound", config.seed),
        eta=1,
        accelerator=shared_accelerator(),
        progress=True,
    )
    return {
        "data": source_name(source),
        "split": split,
        "fingerprint": data.fingerprint,
        "changes": data.changes,
        **{key: value for key, value in report.to_dict().items() if not isinstance(value, list)},
        "transitions": report.transitions.sum().item(),
        "warnings": [*report.warnings, *described_overlap(config.model, data)],
        "seed": config.seed,
        "noise_seed": report.settings.seed,
    }


def held_out_source(config: EvaluateConfig) -> tuple[str, str | None]:
    """Give the source of the held-out images and their split, which default to the reference's."""
    if config.bound_data is not None:
        return config.bound_data, config.bound_split
    return config.data, config.split if config.bound_split is None else config.bound_split


def _open_held_out(
    config: EvaluateConfig, sampler: ImageSampler, source: str, split: str | None
) -> ImageData:
    own = source == config.data
    data = open_measured(
        config,
        sampler.pipe.unet,
        source=source,
        split=split,
        default_fit="exact",
        dataset_config_name=config.dataset_config_name if own else None,
        name="data" if config.bound_data is None else "bound_data",
    )
    count = min(_NUM_IMAGES, len(data)) if config.bound_images is None else config.bound_images
    return random_subset(data, count, "bound_images")
