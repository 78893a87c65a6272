"""What a pretrained model is conditioned on, and what the images are that it goes on with.

    taken_conditions(found, given)              the options that the model remembers
    condition_problems(found, config)           what no rule makes of it
    data = fitted_conditions(data, found.unet, config)

A model that has conditions keeps them: the columns with the ranges of their numbers, the picture
with its channels, its unit and its size in that of the images. One that has none takes those of
the images.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ddpm_pipeline.common import described_sides, process_state, sides_of
from ddpm_pipeline.data import ReadingOptions, conditioning_of, with_conditioning
from ddpm_pipeline.networks import facts_of
from ddpm_pipeline.training.data import TrainingData, data_from_images
from ddpm_pipeline.training.pretrained import OPTION

if TYPE_CHECKING:
    from torch import Tensor

    from ddpm_pipeline.networks import Conditioning
    from ddpm_pipeline.training.config import TrainingConfig
    from ddpm_pipeline.training.pretrained import Pretrained

__all__ = ["condition_problems", "fitted_conditions", "taken_conditions"]

logger = logging.getLogger(__name__)

_NO_STREAM = (
    f"{OPTION}: the model is conditioned on {{}}, and streams have no conditions: leave streaming "
    "out"
)


def taken_conditions(found: Pretrained, given: TrainingConfig) -> dict[str, Any]:
    """Give the options of conditions that the model remembers.

    Raises:
        ValueError: If the model has classes where numbers are given, or conditions where images
            are a stream.
    """
    before, facts = facts_of(found.unet).conditioned_on, facts_of(found.unet)
    has_classes = found.unet.config.num_class_embeds is not None
    if given.condition_vector and has_classes and "class_conditional" not in given.given:
        raise ValueError(
            f"{OPTION}: the model has classes, and a UNet2DModel has one embedding, for them or "
            "for condition_vector: give class_conditional=False too"
        )
    if before is None:
        return {}
    if given.streaming:
        raise ValueError(_NO_STREAM.format(before))
    reading = ReadingOptions.from_dict(facts.reading or {})
    options: dict[str, Any] = {}
    if before.columns:
        options["condition_vector"] = reading.condition_vector
    if before.channels:
        options["condition_on"] = reading.condition_on
        options["condition_upsampling"] = before.upsampling
    return options


def condition_problems(found: Pretrained, config: TrainingConfig) -> list[str]:
    """Say which options of conditions contradict those that the model has."""
    before = facts_of(found.unet).conditioned_on
    if before is None:
        return []
    problems, is_named = [], bool(config.train_data_dir or config.dataset_name)
    for name, has in (
        ("condition_vector", bool(before.columns)),
        ("condition_on", before.channels > 0),
    ):
        asked = getattr(config, name)
        if asked is not None and not has:
            problems.append(f"{name}={asked!r} must be left out, it is conditioned on {before}")
        elif asked is None and has and is_named:
            problems.append(f"{name} must be given, it is conditioned on {before}")
    if before.channels and config.condition_upsampling != before.upsampling:
        problems.append(
            f"condition_upsampling={config.condition_upsampling!r} is not its "
            f"{before.upsampling!r}; leave it out"
        )
    if not all(s * new % old == 0 for s, new, old in _sides(before, found.unet, config)):
        problems.append(
            f"resolution={config.resolution} must keep the share that the images of its condition "
            f"have: {_of_before(before, found.unet)}"
        )
    if before.columns and config.class_conditional:
        problems.append("class_conditional cannot be turned on: it is told numbers in their place")
    return problems


def fitted_conditions(data: TrainingData, network: object, config: TrainingConfig) -> TrainingData:
    """Give images what a model is conditioned on, or the model what the images are.

    Arguments:
        data: The images, with the classes and the unit of the model.
        network: The model's, or its config.
        config: Of the run.
    Raises:
        ValueError: If the model has other conditions than the images.
    """
    before, trains = facts_of(network).conditioned_on, config.max_train_steps != 0
    if before is None:
        if data.given is None:
            return data
        new = conditioning_of(data.given, config.condition_upsampling, trains_null=True)
        knew_null = not trains
    else:
        new, knew_null = _at_sides(before, network, config), before.trains_null
    trains_null = knew_null or (trains and config.condition_dropout > 0)
    new = replace(new, trains_null=trains_null)
    if before is not None:
        data = _with_conditions_of(new, data, config, _described(before, new, network, config))
    return replace(data, conditioned_on=new)


def _at_sides(before: Conditioning, network: object, config: TrainingConfig) -> Conditioning:
    """Give conditions with pictures as much smaller than the images as they were, or as large."""
    sides = tuple(s * new // old for s, new, old in _sides(before, network, config))
    return replace(before, sides=sides) if sides else before


def _sides(
    before: Conditioning, network: object, config: TrainingConfig
) -> list[tuple[int, int, int]]:
    """Give each side of a model's pictures, of the images of the run, and of those of before."""
    size = _sample_size(network)
    if not before.channels or size is None:
        return []
    return list(zip(before.sides, sides_of(config.resolution), sides_of(size), strict=True))


def _sample_size(network: object) -> Any:  # noqa: ANN401
    return getattr(network, "config", network)["sample_size"]


def _of_before(before: Conditioning, network: object) -> str:
    size = described_sides(_sample_size(network))
    return f"{described_sides(before.sides)} at resolution {size}"


def _described(
    before: Conditioning, new: Conditioning, network: object, config: TrainingConfig
) -> str:
    """Say what a model is conditioned on, and how that changes with the resolution."""
    if before.sides == new.sides:
        return str(before)
    now = f"{described_sides(new.sides)} at resolution {described_sides(config.resolution)}"
    return f"{before}: {_of_before(before, network)}, which is {now}"


def _with_conditions_of(
    wanted: Conditioning, data: TrainingData, config: TrainingConfig, said: str
) -> TrainingData:
    """Refuse images with other conditions than a model has; give those of these its unit."""
    name = f"{OPTION}: the training data"
    if data.train is None:
        raise ValueError(_NO_STREAM.format(said))
    train = with_conditioning(data.train, wanted, name, said)
    columns = data.given.columns
    if columns != wanted.columns:
        raise ValueError(
            f"{name}: condition_vector must name the columns that the model is conditioned on, "
            f"{', '.join(wanted.columns)}; got {', '.join(columns)}"
        )
    if wanted.columns:
        _say_what_is_outside(wanted, data.given.vector)
    if not wanted.channels:
        return data
    numbered = config if data.num_classes is None else config.replace(num_classes=data.num_classes)
    opened = data_from_images(numbered, train, data.validation)
    return replace(opened, reading=data.reading, held_out=data.held_out)


def _say_what_is_outside(wanted: Conditioning, vector: Tensor) -> None:
    """Warn of numbers outside the ranges by which a model is told them."""
    ends = zip(vector.amin(0).tolist(), vector.amax(0).tolist(), strict=True)
    ranges = zip(wanted.columns, wanted.low, wanted.high, ends, strict=True)
    outside = [
        f"{name} is {least:g} … {most:g}, and was {low:g} … {high:g}"
        for name, low, high, (least, most) in ranges
        if least < low or most > high
    ]
    if outside and process_state().is_main_process:
        logger.warning(
            "condition_vector: the images have numbers outside the ranges of the pretrained "
            "model, which it keeps: %s",
            "; ".join(outside),
        )
