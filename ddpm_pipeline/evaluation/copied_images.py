"""Testing a saved model for copies, in an evaluation: which images, the numbers, the picture.

    sets = open_copy_sets(config, sampler, data)         training and held-out images, or a reason
    measure_copying(config, sampler, sets, generated, draw, extractor)

Samples are those whose features the evaluation keeps. copies.png shows the worst of them above the
training image and the held-out image that are nearest to each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_pipeline.common import on_main, process_state, stream_generator, write_picture
from ddpm_pipeline.data import (
    ImageData,
    Overlap,
    nearest_picture,
    open_measured,
    source_name,
    training_overlap,
)
from ddpm_pipeline.evaluation.compared_images import random_subset
from ddpm_pipeline.evaluation.config import EvaluateConfig
from ddpm_pipeline.evaluation.copying import NearestPairs, copy_test
from ddpm_pipeline.evaluation.features import FeatureExtractor
from ddpm_pipeline.evaluation.held_out_bound import held_out_source, measure_bound
from ddpm_pipeline.evaluation.nearest import NearestOfMany, nearest_of_many
from ddpm_pipeline.evaluation.statistics import feature_statistics
from ddpm_pipeline.pipelines import ImageSampler

__all__ = ["CopySets", "measure_copying", "open_copy_sets", "training_source"]

_PICTURE_NAME = "copies.png"
_LEAST_HELD_OUT = 2
_NO_HELD_OUT = (
    "it takes images that the model was not trained on: give them by bound_split or bound_data, "
    "or those that it was trained on by training_split or training_data"
)
_CONDITIONED = (
    "the model is conditioned on more than classes, and a sample lies near the real image whose "
    "condition it has, whether the model copies or not"
)


@dataclass(frozen=True, eq=False)
class CopySets:
    """Images that the model was trained on, and others that were drawn alike.

    Arguments:
        train: The training images.
        held_out: The others.
        warnings: What must be said of them.
    """

    train: ImageData
    held_out: ImageData
    warnings: tuple[str, ...] = ()


def training_source(config: EvaluateConfig) -> tuple[str, str | None]:
    """Give the source of the training images and their split, which default to the reference's."""
    if config.training_data is not None:
        return config.training_data, config.training_split
    return config.data, config.split if config.training_split is None else config.training_split


def open_copy_sets(
    config: EvaluateConfig, sampler: ImageSampler, data: ImageData
) -> CopySets | str:
    """Open the images that copies are told by; say why there are none, if so.

    Arguments:
        config: All options.
        sampler: Of the model.
        data: The reference images.
    Raises:
        ValueError: If the images do not fit the model's.
    """
    source, held_out_place = training_source(config), held_out_source(config)
    if sampler.is_conditioned or source == held_out_place:
        return _CONDITIONED if sampler.is_conditioned else _NO_HELD_OUT
    train = _open(config, sampler, data, *source, "training_data")
    if source == (config.data, config.split):
        train = random_subset(train, config.num_reference, "num_reference")
    held_out = _open(config, sampler, data, *held_out_place, "bound_data")
    if train.fingerprint == held_out.fingerprint:
        return _NO_HELD_OUT  # by another name
    found = training_overlap(config.model, train), training_overlap(config.model, held_out)
    if found[0].train == 0:
        return f"none of the {len(train):,} images that it was to copy are its training images"
    if found[1].train == len(held_out):
        return f"all {len(held_out):,} held-out images are training images of the model"
    if len(held_out) < _LEAST_HELD_OUT:
        return f"it takes {_LEAST_HELD_OUT} held-out images or more, got {len(held_out)}"
    return CopySets(train, held_out, tuple(_warnings(*found)))


def _open(
    config: EvaluateConfig,
    sampler: ImageSampler,
    data: ImageData,
    source: str,
    split: str | None,
    option: str,
) -> ImageData:
    """Open images of a source of the options, in the size that the model makes.

    The reference is open already, but without the classes that a bound may need.
    """
    own = source == config.data
    needs_classes = config.bound_images != 0 and _has_classes(sampler)
    is_whole = config.num_reference is None and not needs_classes
    if is_whole and (source, split) == (config.data, config.split):
        return data
    return open_measured(
        config,
        sampler.pipe.unet,
        source=source,
        split=split,
        default_fit="exact",
        labels=None if needs_classes else False,
        dataset_config_name=config.dataset_config_name if own else None,
        name="data" if own else option,
    )


def _has_classes(sampler: ImageSampler) -> bool:
    return sampler.pipe.unet.config.num_class_embeds is not None


def _warnings(train: Overlap, held_out: Overlap) -> list[str]:
    """Say what is not as the test of copying takes it to be."""
    messages = []
    if train.train is not None and train.train < train.images:
        messages.append(
            f"only {train.share} that samples may be copies of are training images of the model, "
            "which hides copies"
        )
    if held_out.train:
        messages.append(
            f"{held_out.share} that are held out in the test of copying are training images of "
            "the model, which hides copies"
        )
    return messages


def measure_copying(
    config: EvaluateConfig,
    sampler: ImageSampler,
    sets: CopySets,
    generated: Tensor,
    draw: Callable[[Sequence[int]], Tensor],
    extractor: FeatureExtractor,
) -> dict[str, Any]:
    """Test whether samples are copies, measure the gap of the bound, show the worst pairs.

    Arguments:
        config: All options.
        sampler: Of the model.
        sets: Training and held-out images.
        generated: Features of the first samples (S, D).
        draw: Gives the samples of some numbers, uint8 (B, C, H, W).
        extractor: Maps images to features.
    Returns:
        The numbers and what they depend on, as JSON values; the same on every process.
    """
    held_out = _features(sets.held_out, extractor, config.num_kept)
    queries = torch.cat([generated, held_out])
    found = nearest_of_many(queries, sets.train, extractor)
    count = len(generated)
    to_train = NearestPairs(*(values[:count] for values in found))
    nearest = NearestOfMany(generated)
    nearest.add(held_out, 0)
    to_held_out = nearest.pairs()
    test = copy_test(
        to_train,
        to_held_out,
        found.distances[count:],
        num_train=len(sets.train),
        seed=config.seed,
    )
    kept = _kept_numbers(len(sets.held_out), config.num_kept)
    to_held_out = to_held_out._replace(numbers=kept[to_held_out.numbers])
    train, others = training_source(config), held_out_source(config)
    return {
        **test.to_dict(),
        "train_data": source_name(train[0]),
        "train_split": train[1],
        "train_fingerprint": sets.train.fingerprint,
        "held_out_data": source_name(others[0]),
        "held_out_split": others[1],
        "held_out_fingerprint": sets.held_out.fingerprint,
        "bound_gap": _bound_gap(config, sampler, sets),
        "worst": _show_worst(config, sets, to_train, to_held_out, draw),
        "warnings": list(sets.warnings),
    }


def _kept_numbers(count: int, most: int) -> Tensor:
    """Choose the held-out images that are looked at, always the same ones."""
    order = torch.randperm(count, generator=stream_generator("evaluated_subset", 0))
    return order[:most].sort().values


def _features(data: ImageData, extractor: FeatureExtractor, most: int) -> Tensor:
    """Give the features of the images that are looked at, on every process."""
    return feature_statistics(
        data.pictures,
        len(data),
        extractor,
        kept=_kept_numbers(len(data), most),
        description="Held-out images",
    ).features


def _bound_gap(
    config: EvaluateConfig, sampler: ImageSampler, sets: CopySets
) -> dict[str, Any] | None:
    """Measure bits/dim of held-out images less those of as many training images.

    None if bits/dim are not asked for.
    """
    if config.bound_images == 0:
        return None
    count = min(config.bound_images or 256, len(sets.train), len(sets.held_out))
    found = {
        name: measure_bound(config, sampler, random_subset(data, count, "bound_images"))
        for name, data in (("train", sets.train), ("held_out", sets.held_out))
    }
    values = {name: bound["bits_per_dim"] for name, bound in found.items()}
    error = math.hypot(*(bound["standard_error"] for bound in found.values()))
    gap = values["held_out"] - values["train"]
    return {
        "bits_per_dim": gap,
        "standard_error": error,
        "p_value": 0.5 * math.erfc(gap / (error * math.sqrt(2))) if error else None,
        "num_images": count,
        **values,
    }


def _show_worst(
    config: EvaluateConfig,
    sets: CopySets,
    to_train: NearestPairs,
    to_held_out: NearestPairs,
    draw: Callable[[Sequence[int]], Tensor],
) -> list[dict[str, Any]]:
    """Write copies.png, and give the numbers behind it: samples nearest to training images.

    As near as they are beside the nearest held-out image, so that a plain image, which is near to
    everything, is not taken for a copy.
    """
    if config.num_nearest == 0:
        return []
    ratios = to_train.distances / to_held_out.distances.clamp_min(torch.finfo(torch.double).tiny)
    shown = ratios.argsort(stable=True)[: config.num_nearest]
    images = draw(shown.tolist())
    copies = sets.train.pictures(to_train.numbers[shown])
    others = sets.held_out.pictures(to_held_out.numbers[shown])

    def write() -> None:
        path = Path(config.output_dir or config.model, _PICTURE_NAME)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, nearest_picture(images, [copies, others]))

    on_main(write, process_state())
    same = (images == copies).flatten(1).all(1).tolist()
    return [
        {
            "image": number,
            "train": to_train.numbers[number].item(),
            "distance": to_train.distances[number].item(),
            "held_out": to_held_out.numbers[number].item(),
            "distance_to_held_out": to_held_out.distances[number].item(),
            "identical": identical,
        }
        for number, identical in zip(shown.tolist(), same, strict=True)
    ]
