"""``ddpm bound``: the variational bound of a saved model on images.

ddpm bound model --data photos/ --split test
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.common import (
    check_output_file,
    library_versions,
    on_main,
    process_state,
    shared_accelerator,
    stream_generator,
    weights_hash,
)
from ddpm_pipeline.data import (
    ImageData,
    ModelBatches,
    described_changes,
    described_overlap,
    open_measured,
    source_name,
)
from ddpm_pipeline.likelihood.bound import variational_bound
from ddpm_pipeline.likelihood.config import BoundConfig, MeasureConfig
from ddpm_pipeline.likelihood.figures import figure_class, save_figure
from ddpm_pipeline.likelihood.report import BoundReport
from ddpm_pipeline.likelihood.units import units_of
from ddpm_pipeline.networks import Conditioning, facts_of
from ddpm_pipeline.pipelines import DDPMPipeline
from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = [
    "MeasuredBound",
    "bound_of_saved_model",
    "bound_on_images",
    "check_results",
    "images_in_order",
    "output_folder",
]


def bound_of_saved_model(config: BoundConfig) -> BoundReport:
    """Measure the bound of a saved model; write bound.json and bound.png.

    On every process of `accelerate launch` together.

    Arguments:
        config: All options.
    Returns:
        The report.
    Raises:
        ValueError: If an option, the images or the model do not fit each other.
        OSError: If the model cannot be loaded.
    """
    check_results(config, "bound.json", "bound.png")
    figure_class()  # is there, before what ends in a figure
    measured = bound_on_images(
        config,
        name="bound",
        shuffled=True,
        target_standard_error=config.target_standard_error,
    )

    if is_also_measured_without(measured):
        same = replace(config, num_images=measured.report.num_images, target_standard_error=None)
        without = bound_on_images(
            same, name="bound-without-condition", shuffled=True, conditioned=False
        ).report
        both = replace(
            measured.report,
            without_condition=without.bits_per_dim,
            without_condition_error=without.standard_error,
        )
        measured = measured._replace(report=both)

    def write() -> None:
        folder = output_folder(config)
        measured.report.to_json(folder / "bound.json", **_described(config, measured))
        save_figure(measured.report, folder / "bound.png")

    on_main(write, process_state())
    return measured.report


def _described(config: MeasureConfig, measured: MeasuredBound) -> dict[str, Any]:
    """Describe the data, the weights and the versions as JSON values; no path and no host."""
    data = {
        "name": source_name(config.data),
        "split": config.split,
        "fingerprint": measured.data.fingerprint,
        "changes": measured.data.changes,
    }
    versions = library_versions()
    seeds = {"seed": config.seed, "noise_seed": measured.report.settings.seed}
    return {"data": data, "weights": measured.weights, "versions": versions, **seeds}


def output_folder(config: MeasureConfig) -> Path:
    """Give the folder that results are written to; make it if it is not there."""
    folder = Path(config.output_dir or config.model)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_results(config: MeasureConfig, *names: str) -> None:
    """Refuse an output folder where results of these names could not be written at the end.

    Raises:
        OSError: If one could not.
    """
    for name in names:
        check_output_file("output_dir", Path(config.output_dir or config.model, name))


class MeasuredBound(NamedTuple):
    """A report, the images in its order, the hash of the model's weights, and its condition."""

    report: BoundReport
    data: ImageData
    weights: str
    conditioned_on: Conditioning | None = None


def is_also_measured_without(measured: MeasuredBound) -> bool:
    """Tell whether a model has a condition and was also trained without it."""
    conditioning = measured.conditioned_on
    return conditioning is not None and conditioning.trains_null


def bound_on_images(
    config: MeasureConfig,
    *,
    name: str,
    shuffled: bool,
    target_standard_error: float | None = None,
    conditioned: bool = True,
) -> MeasuredBound:
    """Measure the bound of a saved model on images, without writing a report.

    Arguments:
        config: What to measure.
        name: Of the file in the output folder that keeps the sums of a run that is stopped.
        shuffled: Whether the images are put in random order.
        target_standard_error: As for ``variational_bound``.
        conditioned: Whether the model is told what the images are conditioned on, if it has such.
    """
    state = process_state()
    accelerator = shared_accelerator()
    pipeline = DDPMPipeline.from_pretrained(config.model).to(state.device)
    scheduler, chain = _scheduler_and_chain(config, pipeline)
    data = images_in_order(config, pipeline, shuffled=shuffled)
    report = variational_bound(
        pipeline.unet,
        scheduler,
        ModelBatches(data, conditioned=conditioned),
        timesteps=chain,
        num_timestep_samples=config.num_timestep_samples or None,
        generator=stream_generator("measured_noise", config.seed),
        batch_size=config.batch_size,
        **units_of(data.scale, config.decoder),
        clip_x_0=config.clip_x_0,
        timestep_sampler=config.timestep_sampler,
        target_standard_error=target_standard_error,
        eta=1,
        accelerator=accelerator,
        state_file=output_folder(config) / f"{name}.state",
        progress=True,
    )
    warnings = described_changes(data) + described_overlap(config.model, data)
    report = replace(report, warnings=report.warnings + warnings)
    weights = weights_hash(pipeline.unet)
    return MeasuredBound(report, data, weights, facts_of(pipeline.unet).conditioned_on)


def _scheduler_and_chain(
    config: MeasureConfig, pipeline: DDPMPipeline
) -> tuple[DDPMScheduler, Tensor | None]:
    scheduler = pipeline.scheduler
    if config.variance_type is not None:
        scheduler = DDPMScheduler.from_config(scheduler.config, variance_type=config.variance_type)
    if config.num_inference_steps is None:
        return scheduler, None
    scheduler.set_timesteps(config.num_inference_steps)
    return scheduler, scheduler.timesteps


def images_in_order(config: MeasureConfig, pipeline: DDPMPipeline, *, shuffled: bool) -> ImageData:
    """Open the images, in random order or in that of the source, as many as are asked for."""
    data = open_measured(config, pipeline.unet)
    count = len(data) if config.num_images is None else config.num_images
    if count > len(data):
        raise ValueError(f"num_images must be at most {len(data)}, the images there are")
    order = torch.arange(len(data))
    if shuffled or count < len(data):
        order = torch.randperm(
            len(data), generator=stream_generator("measured_order", config.seed)
        )
    order = order[:count]
    return data.subset(order if shuffled else order.sort().values)
