"""The two sets of images that an evaluation compares: the reference, and samples drawn before.

    data  = open_reference(config, sampler)                 in the size that the model makes
    classes = choose_classes(config, sampler)               of what is to be drawn
    drawn = open_samples("samples/", data)                  what `ddpm sample` wrote, complete
    read_manifest(Path("samples/"))                         what determined them

Sets that cannot be compared, or that a crash cut short, are refused before anything is measured.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_pipeline.common import check_integer, stream_generator, utf8_alias
from ddpm_pipeline.data import (
    ImageData,
    check_unchanged_size,
    open_images,
    open_measured,
    with_scale,
)
from ddpm_pipeline.evaluation.class_frequencies import (
    ChosenClasses,
    check_classes_of_conditions,
    classes_as_often,
    classes_of_images,
)
from ddpm_pipeline.evaluation.config import EvaluateConfig
from ddpm_pipeline.pipelines import SAMPLES_MANIFEST, ImageSampler, npz_manifest

__all__ = [
    "choose_classes",
    "open_reference",
    "open_samples",
    "random_subset",
    "read_manifest",
]


_PATTERNS = ("*", "?", "[", "{", "::")  # in the paths that `datasets` takes


def open_reference(config: EvaluateConfig, sampler: ImageSampler) -> ImageData:
    """Open the reference images, or as many of them at random as are asked for.

    Raises:
        ValueError: If they do not fit the model's images, or are fewer than that; if classes are
            given that would not be those of the conditions.
    """
    is_told = sampler.is_conditioned and config.samples is None
    if is_told:
        check_classes_of_conditions(sampler.pipe.unet, config.class_labels)
    labels = None if is_told else False
    data = open_measured(config, sampler.pipe.unet, default_fit="exact", labels=labels)
    return random_subset(data, config.num_reference, "num_reference")


def choose_classes(
    config: EvaluateConfig,
    sampler: ImageSampler,
    data: ImageData | None = None,
    rows: Tensor | None = None,
) -> ChosenClasses | None:
    """Choose the classes of the images to draw: as often as the reference images have them.

    Arguments:
        config: All options.
        sampler: Of the model.
        data: The reference images; they count with rows alone.
        rows: Which of them the conditions are of, as ``paired`` gave; None without conditions.
    Returns:
        A class for each image; None for a model without classes, or if the options choose them.
    Raises:
        ValueError: If the reference images have no classes, or others than the model.
    """
    if config.class_labels is not None or sampler.pipe.unet.config.num_class_embeds is None:
        return None
    if rows is not None:
        return classes_of_images(data, sampler.pipe.unet.config, rows, config.num_images)
    try:
        data = open_measured(config, sampler.pipe.unet, default_fit="exact", labels=True)
    except ValueError as error:
        raise ValueError(
            "class_labels must be given: how often each class of the model is to be drawn cannot "
            f"be read from data={config.data!r}: {error}"
        ) from error
    return classes_as_often(data, sampler.pipe.unet.config, config.num_images, seed=config.seed)


def random_subset(data: ImageData, count: int | None, name: str) -> ImageData:
    """Draw some of the images, always the same ones, and keep them in order; None takes all.

    Raises:
        ValueError: If there are not so many; names the option.
    """
    if count is None:
        return data
    check_integer(name, count, most=len(data), note=", the images there are")
    order = torch.randperm(len(data), generator=stream_generator("evaluated_subset", 0))
    return data.subset(order[:count].sort().values)


def open_samples(samples: str, reference: ImageData) -> ImageData:
    """Open images that `ddpm sample` or another program wrote.

    Arguments:
        samples: A folder, a folder of .tar shards or a .npz file.
        reference: What they are to be compared with.
    Raises:
        ValueError: If they do not have the reference's shape, or are not complete.
        ImportError: If they are in .tar shards and `datasets` is not installed.
    """
    name = f"samples={samples!r}"
    source = _webdataset(Path(samples)) or samples
    # Values are in an array; files of pictures hold them as they are looked at.
    is_exact = reference.scale is not None and Path(samples).suffix == ".npz"
    depth = "exact" if is_exact else "bytes"
    data = open_images(source, resolution=reference.resolution, strict=True, depth=depth)
    if is_exact:
        data = with_scale(data, reference.scale, name, "clip")
    if data.channels != reference.channels:
        raise ValueError(
            f"{name} has images of {data.channels} channel(s), the reference of "
            f"{reference.channels}"
        )
    check_unchanged_size(data, name)
    expected = read_manifest(Path(samples)).get("num_images", len(data))
    if len(data) != expected:
        raise ValueError(
            f"{name} holds {len(data)} of {expected} images; run `ddpm sample` again to finish it"
        )
    return data


def _webdataset(folder: Path) -> Any:  # noqa: ANN401 (a datasets.Dataset, which is optional)
    """Open the .tar shards of a folder as a data set; None if it has none."""
    shards = sorted(folder.glob("*.tar"))
    if not shards:
        return None
    for shard in shards:
        if shard.stat().st_size == 0:
            raise ValueError(
                f"{str(shard)!r} is empty, as a crash leaves it; run `ddpm sample` again"
            )
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ImportError(
            "reading .tar shards needs datasets: pip install ddpm_pipeline[train]"
        ) from error
    with utf8_alias(folder, special=_PATTERNS) as name:
        files = [str(Path(name, path.name)) for path in shards]
        return load_dataset("webdataset", data_files=files, split="train")


def read_manifest(samples: Path) -> dict[str, Any]:
    """Read what determined images that `ddpm sample` drew; empty for those of other programs."""
    if (samples / SAMPLES_MANIFEST).is_file():
        return json.loads((samples / SAMPLES_MANIFEST).read_text())
    if samples.suffix == ".npz":
        with zipfile.ZipFile(samples) as archive:
            if SAMPLES_MANIFEST in archive.namelist():
                return npz_manifest(samples)
    return {}
