"""What an update draws on the CPU, brought to the device in one copy.

Timesteps, mirrored images and dropped labels are drawn where every device draws alike, on the
CPU, each from a stream of its own. A blocking copy for each would make the host wait several
times in every update; they go to the device as rows of one tensor.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.common import moved, sides_of, stream_generator
from ddpm_pipeline.data import (
    augmented,
    draw_augmentation,
    flip_coins,
    mirrored,
    model_values,
    moved_alike,
)
from ddpm_pipeline.networks import Condition, Told, conditions, facts_of, ready_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ddpm_pipeline.data import Batch
    from ddpm_pipeline.diffusion import ChosenTimesteps, TrainingObjective
    from ddpm_pipeline.networks import Conditioning
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["MicroDraws", "draw_update", "inputs_of"]


class MicroDraws(NamedTuple):
    """What one micro-step draws but for its noise, on the device.

    Arguments:
        chosen: Its timesteps.
        mirrored: Which images are mirrored, bool (B,); None if none may be.
        dropped: Which labels become the null class, bool (B,); None if none may.
        augmentation: How images are augmented, float32 (B, A); None if none are.
        without: Which images are told no condition, bool (B,); None if all are.
    """

    chosen: ChosenTimesteps
    mirrored: Tensor | None
    dropped: Tensor | None
    augmentation: Tensor | None = None
    without: Tensor | None = None


def draw_update(
    config: TrainingConfig,
    objective: TrainingObjective,
    t: Tensor,
    step: int,
    rank: int,
    conditioning: Conditioning | None = None,
) -> list[MicroDraws]:
    """Draw what the micro-steps of an update need.

    Arguments:
        config: Resolved.
        objective: What is trained for.
        t: This process's timesteps, int64 (micro-steps, B), on the CPU.
        step: Number of the update.
        rank: Number of the process.
        conditioning: What the images are conditioned on beside classes.
    """
    splits = [objective.split(row) for row in t]
    rows = [t] if splits[0] is None else [t, torch.stack([split.order for split in splits])]
    places = [(config.seed, step, micro, rank) for micro in range(len(t))]
    size = t.shape[1]
    if config.random_flip:
        coins = [flip_coins(size, stream_generator("flips", *place)) for place in places]
        rows.append(torch.stack(coins))
    drops = config.class_conditional and config.label_dropout > 0
    if drops:
        draws = [torch.rand(size, generator=stream_generator("labels", *p)) for p in places]
        rows.append((torch.stack(draws) < config.label_dropout).long())
    drops_conditions = conditioning is not None and config.condition_dropout > 0
    without = _draw_without(config, size, places, objective.device) if drops_conditions else None
    augmentation = _draw_augmentation(config, size, places, objective.device)
    there = list(moved(torch.stack(rows), objective.device).unbind())
    t = there.pop(0)
    orders = None if splits[0] is None else there.pop(0)
    return [
        MicroDraws(
            objective.choose(t[i], split and split._replace(order=orders[i])),
            there[0][i].bool() if config.random_flip else None,
            there[-1][i].bool() if drops else None,
            None if augmentation is None else augmentation[i],
            None if without is None else without[i],
        )
        for i, split in enumerate(splits)
    ]


def _draw_augmentation(
    config: TrainingConfig, size: int, places: list[tuple[int, ...]], device: torch.device
) -> Tensor | None:
    """Draw how the images of each micro-step are augmented, (micro-steps, B, A), on the device."""
    if not config.augment:
        return None
    options = (config.augment, config.augment_probability, size, sides_of(config.resolution))
    draws = [draw_augmentation(*options, stream_generator("augmentation", *p)) for p in places]
    return moved(torch.stack(draws), device)


def _draw_without(
    config: TrainingConfig, size: int, places: list[tuple[int, ...]], device: torch.device
) -> Tensor:
    """Draw which images of each micro-step are told no condition, (micro-steps, B)."""
    draws = [torch.rand(size, generator=stream_generator("conditions", *p)) for p in places]
    return moved(torch.stack(draws) < config.condition_dropout, device)


def inputs_of(
    batch: Batch, drawn: MicroDraws, config: TrainingConfig, network: Mapping[str, Any]
) -> tuple[Tensor, Told]:
    """Change a batch as was drawn.

    Arguments:
        batch: Images, and their labels or None.
        drawn: For them.
        config: Resolved.
        network: The network's config: the last of its class embeddings takes the place of dropped
            labels, and it remembers the scale of the images' values.
    Returns:
        x_0, and what the network is told beside the timesteps: labels, augmentations, or both; or
        a condition that is ready, whose labels are those.
    """
    images, labels = batch
    if isinstance(labels, Condition):
        return _conditioned(images, labels, drawn, config, network)
    if drawn.mirrored is not None:
        images = mirrored(images, drawn.mirrored)
    if labels is not None and drawn.dropped is not None:
        labels = labels.masked_fill(drawn.dropped, network["num_class_embeds"] - 1)
    x_0 = model_values(images, facts_of(network).scale)
    if drawn.augmentation is None:
        return x_0, labels
    x_0 = augmented(x_0, config.augment, drawn.augmentation)
    return x_0, conditions(labels, drawn.augmentation)


def _conditioned(
    images: Tensor,
    told: Condition,
    drawn: MicroDraws,
    config: TrainingConfig,
    network: Mapping[str, Any],
) -> tuple[Tensor, Condition]:
    """Change a batch with conditions, which are mirrored, moved and dropped as was drawn.

    Numbers stay those of the image as it was, since the network is told what was done to it.
    """
    if drawn.mirrored is not None:
        images = mirrored(images, drawn.mirrored)
        if told.picture is not None:
            told = replace(told, picture=mirrored(told.picture, drawn.mirrored))
    if told.labels is not None and drawn.dropped is not None:
        null_class = network["num_class_embeds"] - 1
        told = replace(told, labels=told.labels.masked_fill(drawn.dropped, null_class))
    if drawn.without is not None:
        told = told.without(drawn.without)
    facts = facts_of(network)
    x_0 = model_values(images, facts.scale)
    ready, changes = ready_for(network, told, tuple(x_0.shape[2:])), drawn.augmentation
    if changes is None:
        return x_0, ready
    picture = ready.picture
    if picture is not None:
        mode = "nearest" if facts.conditioned_on.upsampling == "nearest" else "bilinear"
        picture = moved_alike(picture, config.augment, changes, mode)
    ready = replace(ready, labels=conditions(ready.labels, changes), picture=picture)
    return augmented(x_0, config.augment, changes), ready
