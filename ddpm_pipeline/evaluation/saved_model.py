"""How good a model's images are: one table, with all that its numbers depend on.

    report = evaluate(EvaluateConfig(model="model", data="photos/", features="inception"))
    print(report.table())

Images are drawn and compared with a reference data set in features: by the Fréchet distance (FID
in Inception's features), KID with its error, precision and recall. A picture shows some of them
above the reference images nearest to them, so that a person sees whether the model copies.
"""

from __future__ import annotations

import json
import logging
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list

from ddpm_pipeline.common import (
    process_state,
    shared_accelerator,
    stream_generator,
    write_aside,
    write_text,
)
from ddpm_pipeline.data import ImageData, nearest_picture, open_images, source_name, to_model_range
from ddpm_pipeline.evaluation.config import EvaluateConfig
from ddpm_pipeline.evaluation.features import FeatureExtractor, load_features
from ddpm_pipeline.evaluation.metrics import check_count, frechet_distance, kid, precision_recall
from ddpm_pipeline.evaluation.nearest import nearest_images
from ddpm_pipeline.evaluation.report import EvaluationReport
from ddpm_pipeline.evaluation.statistics import (
    ImageStatistics,
    measure,
    reference_statistics,
    sample_statistics,
)
from ddpm_pipeline.likelihood import variational_bound
from ddpm_pipeline.pipelines import MANIFEST_NAME, ImageSampler, load_image_sampler, npz_manifest
from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["REPORT_NAME", "evaluate"]

logger = logging.getLogger(__name__)


REPORT_NAME = "evaluation.json"
NEAREST_NAME = "nearest.png"
UNBIASED_FROM = 10_000
_BOUND_IMAGES = 256


def evaluate(config: EvaluateConfig) -> EvaluationReport:
    """Measure a model's images, on every process of `accelerate launch` together.

    Writes evaluation.json and nearest.png to the output directory.

    Arguments:
        config: All options.
    Returns:
        The report, the same on every process.
    Raises:
        ImportError: If the features need a library that is not installed; names what to install.
        ValueError: If there are too few images for the features, the reference images do not fit
            the model's, or an option is not allowed.
    """
    state = process_state()
    sampler = load_image_sampler(config, state.device)
    extractor = load_features(config.features, state.device)
    data = _open_reference(config, sampler)
    drawn = None if config.samples is None else _open_samples(config, data)
    count = config.num_images if drawn is None else len(drawn)
    _check_numbers(config, min(count, len(data), config.num_kept), count)
    real = reference_statistics(
        data, extractor, num_kept=config.num_kept, cache_dir=config.cache_dir
    )
    check_count(min(count, len(data)), real.moments.dim)
    if drawn is None:
        generated = sample_statistics(sampler, extractor, count, num_kept=config.num_kept)
    else:
        kept = torch.arange(min(count, config.num_kept))
        generated = measure(lambda i: drawn.batch(i).images, count, extractor, kept=kept)
    nearest = _show_nearest(config, sampler, drawn, data, extractor)
    bound = _bound(config, sampler)
    report = [None]
    if state.is_main_process:
        report = [_report(config, sampler, extractor, data, real, generated, nearest, bound)]
        for warning in report[0].warnings:
            logger.warning(warning)
        text = json.dumps(report[0].to_dict(), indent=2) + "\n"
        write_text(_output(config) / REPORT_NAME, text)
    return broadcast_object_list(report)[0]


def _output(config: EvaluateConfig) -> Path:
    folder = Path(config.output or config.model)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# The images to compare.


def _open_reference(config: EvaluateConfig, sampler: ImageSampler) -> ImageData:
    data = _open_like_the_models(config, sampler, config.data, config.split)
    return _random_subset(data, config.num_reference, "num_reference")


def _open_like_the_models(
    config: EvaluateConfig,
    sampler: ImageSampler,
    source: str,
    split: str | None,
    *,
    labels: bool = False,
) -> ImageData:
    """Images of the size and the channels of those that the model makes."""
    unet = sampler.pipe.unet.config
    if not isinstance(unet.sample_size, int):
        raise ValueError(f"the model must make square images, got sample_size={unet.sample_size}")
    data = open_images(source, resolution=unet.sample_size, split=split, labels=labels)
    if data.channels != unet.in_channels:
        raise ValueError(
            f"data={source!r} has images of {data.channels} channel(s), the model makes images of "
            f"{unet.in_channels}"
        )
    if config.fit == "exact":
        _check_size(data, f"data={source!r}", "; fit='resize' scales and crops them")
    return data


def _random_subset(data: ImageData, count: int | None, name: str) -> ImageData:
    if count is None:
        return data
    if not 1 <= count <= len(data):
        raise ValueError(f"{name} must be 1 to {len(data)}, the images there are, got {count}")
    order = torch.randperm(len(data), generator=stream_generator("evaluated_subset", 0))
    return data.subset(order[:count].sort().values)


def _check_size(data: ImageData, name: str, remedy: str = "") -> None:
    if data.was_resized or data.was_cropped or data.was_padded:
        side = data.resolution
        raise ValueError(
            f"{name} has images of another size than the model's {side}×{side}{remedy}"
        )


def _open_samples(config: EvaluateConfig, reference: ImageData) -> ImageData:
    name = f"samples={config.samples!r}"
    source = _webdataset(Path(config.samples)) or config.samples
    options = {"resolution": reference.resolution, "strict": True}
    data = open_images(source, **options)
    if data.channels != reference.channels:
        raise ValueError(
            f"{name} has images of {data.channels} channel(s), the reference of "
            f"{reference.channels}"
        )
    _check_size(data, name)
    expected = _manifest(Path(config.samples)).get("num_images", len(data))
    if len(data) != expected:
        raise ValueError(
            f"{name} holds {len(data)} of {expected} images; run `ddpm sample` again to finish it"
        )
    return data


def _webdataset(folder: Path) -> Any:  # noqa: ANN401 (a datasets.Dataset, which is optional)
    """The data set of a folder's .tar shards, None if it has none."""
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
    return load_dataset("webdataset", data_files=[str(path) for path in shards], split="train")


def _manifest(samples: Path) -> dict[str, Any]:
    """What determined images that were drawn before; empty for those of other programs."""
    if (samples / MANIFEST_NAME).is_file():
        return json.loads((samples / MANIFEST_NAME).read_text())
    if samples.suffix == ".npz":
        with zipfile.ZipFile(samples) as archive:
            if MANIFEST_NAME in archive.namelist():
                return npz_manifest(samples)
    return {}


def _check_numbers(config: EvaluateConfig, kept: int, num_images: int) -> None:
    if kept < 2 * config.kid_subsets:
        raise ValueError(
            f"kid_subsets={config.kid_subsets} needs {2 * config.kid_subsets} images or more in "
            f"both sets, got {kept}"
        )
    if kept <= config.neighbors:
        raise ValueError(f"neighbors must be below the {kept} images, got {config.neighbors}")
    if num_images < config.num_nearest:
        raise ValueError(
            f"num_nearest must be at most the {num_images} images, got {config.num_nearest}"
        )


# Bits per dimension.


def _bound(config: EvaluateConfig, sampler: ImageSampler) -> dict[str, Any] | None:
    """The bound of the model's full chain, with what it was measured on, as JSON values."""
    if config.bound_images == 0:
        return None
    source, split = config.bound_data or config.data, config.bound_split
    if config.bound_data is None and split is None:
        split = config.split
    labels = sampler.pipe.unet.config.num_class_embeds is not None
    data = _open_like_the_models(config, sampler, source, split, labels=labels)
    count = min(_BOUND_IMAGES, len(data)) if config.bound_images is None else config.bound_images
    data = _random_subset(data, count, "bound_images")
    images, classes = data.batch(range(len(data)))
    scheduler = sampler.saved_scheduler
    if not isinstance(scheduler, DDPMScheduler):
        scheduler = DDPMScheduler.from_config(scheduler.config)
    accelerator = shared_accelerator()
    report = variational_bound(
        sampler.pipe.unet,
        scheduler,
        to_model_range(images),
        class_labels=classes,
        num_timestep_samples=config.bound_timesteps,
        generator=stream_generator("evaluated_bound", config.seed),
        accelerator=accelerator,
        progress=True,
    )
    return {
        "data": source_name(source),
        "split": split,
        "fingerprint": data.fingerprint,
        "changes": data.changes,
        **{key: value for key, value in report.to_dict().items() if not isinstance(value, list)},
        "transitions": report.transitions.sum().item(),
        "warnings": list(report.warnings),
    }


# The report.


def _show_nearest(
    config: EvaluateConfig,
    sampler: ImageSampler,
    drawn: ImageData | None,
    data: ImageData,
    extractor: FeatureExtractor,
) -> list[dict[str, Any]]:
    """Write nearest.png; the numbers and distances behind it."""
    if config.num_nearest == 0:
        return []
    shown = range(config.num_nearest)
    images = (
        torch.from_numpy(sampler(shown)).permute(0, 3, 1, 2)
        if drawn is None
        else drawn.batch(shown).images
    )
    distances, numbers = nearest_images(images, data, extractor)
    if process_state().is_main_process:
        neighbors = [data.batch(column).images for column in numbers.T]
        with write_aside(_output(config) / NEAREST_NAME) as file:
            nearest_picture(images, neighbors).save(file, "png")
    return [
        {"image": i, "nearest": numbers[i].tolist(), "distances": distances[i].tolist()}
        for i in shown
    ]


def _report(
    config: EvaluateConfig,
    sampler: ImageSampler,
    extractor: FeatureExtractor,
    data: ImageData,
    real: ImageStatistics,
    generated: ImageStatistics,
    nearest: list[dict[str, Any]],
    bound: dict[str, Any] | None,
) -> EvaluationReport:
    count = generated.moments.count
    kernel = kid(
        generated.features,
        real.features,
        num_subsets=config.kid_subsets,
        generator=stream_generator("evaluated_subset", config.seed),
    )
    precision, recall = precision_recall(
        real.features, generated.features, neighbors=config.neighbors
    )
    from_model = config.samples is None
    return EvaluationReport(
        frechet_distance=frechet_distance(generated.moments, real.moments),
        kid=kernel.value,
        kid_standard_error=kernel.standard_error,
        precision=precision,
        recall=recall,
        bound=bound,
        seconds_per_image=generated.seconds / count if from_model else None,
        num_images=count,
        num_reference=len(data),
        num_kept=config.num_kept,
        kid_subsets=config.kid_subsets,
        neighbors=config.neighbors,
        features=extractor.name,
        feature_dim=real.moments.dim,
        resize=extractor.resize,
        reference=data.fingerprint,
        reference_data=source_name(config.data),
        reference_split=config.split,
        reference_changes=data.changes,
        sampler=sampler.describe() if from_model else _manifest(Path(config.samples)),
        nearest=nearest,
        device=process_state().device.type,
        versions={name: version(name) for name in ("torch", "diffusers")},
        warnings=_warnings(count, len(data)),
    )


def _warnings(num_images: int, num_reference: int) -> list[str]:
    return [
        f"the Fréchet distance is biased upwards by about 1 / N, and {count:,} {name} images are "
        f"under {UNBIASED_FROM:,}: compare it only with others from as many; KID is unbiased"
        for name, count in (("drawn", num_images), ("reference", num_reference))
        if count < UNBIASED_FROM
    ]
