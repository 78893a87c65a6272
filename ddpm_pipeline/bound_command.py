"""``ddpm bound``: the variational bound of a saved model on images.

ddpm bound model --data photos/ --split test
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from ddpm_pipeline.arguments import parse
from ddpm_pipeline.bound import variational_bound
from ddpm_pipeline.bound_figures import save_figure
from ddpm_pipeline.bound_report import BoundReport
from ddpm_pipeline.bound_sampling import BoundSampler
from ddpm_pipeline.data import ImageData, open_images, seeded_generator, to_model_range
from ddpm_pipeline.features import weights_hash
from ddpm_pipeline.image_sources import source_name
from ddpm_pipeline.pipeline import DDPMPipeline
from ddpm_pipeline.sampling import process_state
from ddpm_pipeline.scheduler import DDPMScheduler

__all__ = [
    "BoundConfig",
    "MeasureConfig",
    "Measurement",
    "bound_command",
    "measure",
    "output_folder",
    "run",
]

_ORDER_STREAM = 31
_BOUND_STREAM = 32
_READ_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """What is measured, on which images.

    Raises:
        ValueError: If a value is not allowed; the message names it and what is.
    """

    model: str
    """A model's folder, or its name on the Hub; `--model` may be left out before it."""
    data: str
    """Images the model was not trained on: anything that `open_images` takes."""
    split: str | None = None
    """Which part of the data; "train" unless given, if there is one."""
    num_images: int | None = None
    """How many images, drawn at random; all unless given."""
    fit: Literal["resize", "pad"] = "resize"
    """Scale images of another size to the model's, or put black around smaller ones."""
    num_timestep_samples: int = 8
    """Timesteps drawn for each image, beside the decoder's; 0 sums every term exactly."""
    timestep_sampler: BoundSampler = "rate"
    """How they are drawn: by what they carry, evenly, or independently."""
    num_inference_steps: int | None = None
    """The bound of a chain of so many steps, spaced as the model says; all T unless given."""
    variance_type: str | None = None
    """Another variance of the reverse moves than the model's: fixed_small, fixed_large, ..."""
    decoder: Literal["discretized", "continuous", "discretized_tanh"] = "discretized"
    """The probability of 8-bit levels, a density, or the approximation of published code."""
    clip_x_0: float | None = None
    """Clamp the predicted x_0 to plus and minus this; not at all unless given."""
    batch_size: int | None = None
    """Rows of one forward pass, over images and timesteps together."""
    output_dir: str | None = None
    """Where results are written; the model's folder unless given."""
    seed: int = 0
    """The images, timesteps and noise follow from this number."""

    def __post_init__(self) -> None:
        for name, least in (("num_images", 1), ("num_timestep_samples", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.output_dir is None and not Path(self.model).is_dir():
            raise ValueError(
                f"output_dir must be given for model={self.model!r}, no folder on this machine"
            )


@dataclass(frozen=True, kw_only=True)
class BoundConfig(MeasureConfig):
    """Measure the variational bound of a saved model on images, in bits per dimension.

    Writes bound.json and bound.png, and continues a run that was stopped.
    """

    target_standard_error: float | None = None
    """Stop once the standard error is as small, in bits per dimension."""


def bound_command(config: BoundConfig) -> BoundReport:
    """Measure, write bound.json and bound.png, and return the report.

    On every process of `accelerate launch` together.

    Arguments:
        config: All options.
    Raises:
        ValueError: If an option, the images or the model do not fit each other.
        OSError: If the model cannot be loaded.
    """
    measured = measure(
        config,
        name="bound",
        shuffled=True,
        target_standard_error=config.target_standard_error,
    )
    if process_state().is_main_process:
        folder = output_folder(config)
        text = json.dumps(_described(config, measured), indent=1) + "\n"
        (folder / "bound.json").write_text(text, encoding="utf-8")
        save_figure(measured.report, folder / "bound.png")
    return measured.report


def _described(config: MeasureConfig, measured: Measurement) -> dict[str, Any]:
    """The report with what it is a report of, as JSON values; no path and no host."""
    data = {
        "name": source_name(config.data),
        "split": config.split,
        "fingerprint": measured.data.fingerprint,
        "changes": measured.data.changes,
    }
    versions = {name: version(name) for name in ("torch", "diffusers")}
    more = {"data": data, "weights": measured.weights, "versions": versions}
    return {**measured.report.to_dict(), **more}


def run(argv: Sequence[str]) -> None:
    """Measure as the arguments say, and print the table."""
    if argv and not argv[0].startswith("-"):
        argv = ["--model", *argv]
    report = bound_command(parse(BoundConfig, argv, prog="ddpm bound"))
    if process_state().is_main_process:
        print(report)  # noqa: T201


def output_folder(config: MeasureConfig) -> Path:
    """Where results are written; made if it is not there."""
    folder = Path(config.output_dir or config.model)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Measurement(NamedTuple):
    """A report, the images in its order, and the hash of the model's weights."""

    report: BoundReport
    data: ImageData
    weights: str


def measure(
    config: MeasureConfig,
    *,
    name: str,
    shuffled: bool,
    target_standard_error: float | None = None,
) -> Measurement:
    """The report of a model on images.

    Arguments:
        config: What to measure.
        name: Of the file in the output folder that keeps the sums of a run that is stopped.
        shuffled: Whether the images are put in random order.
        target_standard_error: As for ``variational_bound``.
    """
    state = process_state()
    accelerator = None
    if state.num_processes > 1:
        accelerator = Accelerator(cpu=state.device.type == "cpu")
    pipeline = DDPMPipeline.from_pretrained(config.model).to(state.device)
    scheduler, chain = _scheduler_and_chain(config, pipeline)
    data = _open_data(config, pipeline, shuffled=shuffled)
    report = variational_bound(
        pipeline.unet,
        scheduler,
        _Batches(data),
        timesteps=chain,
        num_timestep_samples=config.num_timestep_samples or None,
        generator=seeded_generator(config.seed, _BOUND_STREAM),
        batch_size=config.batch_size,
        decoder=config.decoder,
        clip_x_0=config.clip_x_0,
        timestep_sampler=config.timestep_sampler,
        target_standard_error=target_standard_error,
        accelerator=accelerator,
        state_file=output_folder(config) / f"{name}.state",
        progress=True,
    )
    report = replace(report, warnings=report.warnings + _changes(data))
    return Measurement(report, data, weights_hash(pipeline.unet))


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


def _open_data(config: MeasureConfig, pipeline: DDPMPipeline, *, shuffled: bool) -> ImageData:
    """Images of the size and the channels that the model was made for."""
    unet = pipeline.unet.config
    if not isinstance(unet.sample_size, int):
        raise ValueError(f"the model must make square images, got sample_size={unet.sample_size}")
    data = open_images(
        config.data,
        resolution=unet.sample_size,
        channels=unet.in_channels,
        fit=config.fit,
        split=config.split,
        labels=unet.num_class_embeds is not None,
    )
    count = len(data) if config.num_images is None else config.num_images
    if count > len(data):
        raise ValueError(f"num_images must be at most {len(data)}, the images there are")
    order = torch.arange(len(data))
    if shuffled or count < len(data):
        order = torch.randperm(len(data), generator=seeded_generator(config.seed, _ORDER_STREAM))
    order = order[:count]
    return data.subset(order if shuffled else order.sort().values)


@dataclass(frozen=True)
class _Batches:
    """All images in [-1, 1] with their labels, some at a time."""

    data: ImageData

    def __len__(self) -> int:
        return math.ceil(len(self.data) / _READ_AT_ONCE)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for numbers in torch.arange(len(self.data)).split(_READ_AT_ONCE):
            images, labels = self.data.batch(numbers)
            yield to_model_range(images), labels


_MEANINGS = {
    "resized": "scaling smooths noise away, which makes them more likely",
    "cropped": "a part of each is not measured",
    "padded": "a black border costs almost nothing, which lowers the mean over dimensions",
    "requantized": "values between the 256 levels were rounded to them",
}


def _changes(data: ImageData) -> tuple[str, ...]:
    """What was done to the images before they were measured, and what the number then means."""
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
