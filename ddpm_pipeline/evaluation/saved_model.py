"""How good a model's images are: one table, with all that its numbers depend on.

    report = evaluate(EvaluateConfig(model="model", data="photos/", features="inception"))
    print(report.table())

Images are drawn and compared with a reference data set in features: by the Fréchet distance (FID
in Inception's features), KID with its error, precision and recall. A picture shows some of them
above the reference images nearest to them, so that a person sees whether the model copies; where
there are training and held-out images, ``measure_copying`` tests it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_pipeline.common import (
    library_versions,
    on_main,
    precise_dtype,
    process_state,
    stream_generator,
    write_json,
    write_picture,
)
from ddpm_pipeline.data import (
    ImageData,
    described_reference,
    nearest_picture,
    source_name,
    training_overlap,
)
from ddpm_pipeline.evaluation.class_frequencies import AS_OFTEN, ChosenClasses
from ddpm_pipeline.evaluation.compared_images import (
    choose_classes,
    open_reference,
    open_samples,
    read_manifest,
)
from ddpm_pipeline.evaluation.config import EvaluateConfig
from ddpm_pipeline.evaluation.copied_images import measure_copying, open_copy_sets
from ddpm_pipeline.evaluation.features import FeatureExtractor, load_features
from ddpm_pipeline.evaluation.held_out_bound import measure_bound, open_held_out
from ddpm_pipeline.evaluation.metrics import check_count, frechet_distance, kid, precision_recall
from ddpm_pipeline.evaluation.nearest import nearest_images
from ddpm_pipeline.evaluation.pairs import measure_pairs, paired
from ddpm_pipeline.evaluation.report import EvaluationReport
from ddpm_pipeline.evaluation.statistics import (
    ImageStatistics,
    feature_statistics,
    reference_statistics,
    sample_statistics,
)
from ddpm_pipeline.pipelines import ImageSampler, load_image_sampler

__all__ = ["evaluate"]

_REPORT_NAME = "evaluation.json"
_NEAREST_NAME = "nearest.png"
_UNBIASED_FROM = 10_000


def evaluate(config: EvaluateConfig) -> EvaluationReport:
    """Measure a model's images, on every process of `accelerate launch` together.

    Writes evaluation.json, nearest.png and copies.png to the output directory.

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
    data = open_reference(config, sampler)
    drawn = None if config.samples is None else open_samples(config.samples, data)
    held_out = open_held_out(config, sampler)
    copy_sets = open_copy_sets(config, sampler, data)
    count = config.num_images if drawn is None else len(drawn)
    dim = extractor(data.pictures(range(1))).shape[1]
    check_count(count, dim, " by num_images" if drawn is None else " in samples")
    check_count(
        len(data), dim, " in data" if config.num_reference is None else " by num_reference"
    )
    _check_numbers(config, min(count, len(data), config.num_kept), count)
    chosen, pairs = None, None
    if drawn is None:
        sampler, pairs = paired(sampler, data, config.num_images, config.seed)
        chosen = choose_classes(config, sampler, data, pairs)
        sampler = _try_sampler(sampler, chosen)
    draw = _drawing(sampler, drawn)
    bound = None if held_out is None else measure_bound(config, sampler, held_out)
    real = reference_statistics(
        data, extractor, num_kept=config.num_kept, cache_dir=_statistics_dir(config)
    )
    generated = _generated_statistics(config, sampler, drawn, extractor)
    nearest = _show_nearest(config, draw, data, extractor)
    near_truth = measure_pairs(draw, data, pairs)
    copying = (
        {"not_tested": copy_sets}
        if isinstance(copy_sets, str)
        else measure_copying(config, sampler, copy_sets, generated.features, draw, extractor)
    )

    def report() -> EvaluationReport:
        found = EvaluationReport(
            **_compare(config, generated, real, extractor.device),
            **_describe(config, sampler, extractor, data, generated),
            class_counts=None if chosen is None else chosen.counts,
            bound=bound,
            nearest=nearest,
            pairs=near_truth,
            copying=copying,
        )
        write_json(_output(config) / _REPORT_NAME, found.to_dict())
        return found

    return on_main(report, state)


def _try_sampler(sampler: ImageSampler, chosen: ChosenClasses | None) -> ImageSampler:
    """Give a sampler the classes of its images, and draw one of every class to see that it can.

    One chain is walked with all its steps, the others in one: whatever drawing refuses is refused
    here, in seconds.
    """
    options = sampler.options
    if chosen is None:
        count = 1 if options.class_labels is None else len(options.class_labels)
        short = replace(options, num_inference_steps=1)
        replace(sampler, options=short)(range(count))
    else:
        sampler = replace(sampler, options=replace(options, class_labels=chosen.labels))
    replace(sampler, options=replace(sampler.options, batch_size=1))(range(1))
    return sampler


def _check_numbers(config: EvaluateConfig, kept: int, num_images: int) -> None:
    """Refuse, before anything is drawn, what the metrics would refuse afterwards."""
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


def _generated_statistics(
    config: EvaluateConfig,
    sampler: ImageSampler,
    drawn: ImageData | None,
    extractor: FeatureExtractor,
) -> ImageStatistics:
    """Pass the images drawn before through the extractor, or else draw new ones."""
    if drawn is None:
        return sample_statistics(sampler, extractor, config.num_images, num_kept=config.num_kept)
    kept = torch.arange(min(len(drawn), config.num_kept))
    return feature_statistics(drawn.pictures, len(drawn), extractor, kept=kept)


def _drawing(sampler: ImageSampler, drawn: ImageData | None) -> Callable[[Sequence[int]], Tensor]:
    """Give what draws the images of some numbers, uint8 (B, C, H, W), or reads those drawn."""
    if drawn is not None:
        return drawn.pictures
    return lambda numbers: torch.from_numpy(sampler(numbers)).permute(0, 3, 1, 2)


def _show_nearest(
    config: EvaluateConfig,
    draw: Callable[[Sequence[int]], Tensor],
    data: ImageData,
    extractor: FeatureExtractor,
) -> list[dict[str, Any]]:
    """Write nearest.png, and give the numbers and distances behind it."""
    if config.num_nearest == 0:
        return []
    shown = range(config.num_nearest)
    images = draw(shown)
    distances, numbers = nearest_images(images, data, extractor)

    def write() -> None:
        neighbors = [data.pictures(column) for column in numbers.T]
        write_picture(_output(config) / _NEAREST_NAME, nearest_picture(images, neighbors))

    on_main(write, process_state())
    return [
        {"image": i, "nearest": numbers[i].tolist(), "distances": distances[i].tolist()}
        for i in shown
    ]


def _compare(
    config: EvaluateConfig,
    generated: ImageStatistics,
    real: ImageStatistics,
    device: torch.device | str,
) -> dict[str, float]:
    """Give the part of the report that is distances between the two sets.

    Those of features one by one are computed on the device, if it has float64.
    """
    has_float64 = precise_dtype(torch.device(device)) == torch.float64
    drawn, known = (
        statistics.features.to(device if has_float64 else "cpu")
        for statistics in (generated, real)
    )
    kernel = kid(
        drawn,
        known,
        num_subsets=config.kid_subsets,
        generator=stream_generator("evaluated_subset", config.seed),
    )
    precision, recall = precision_recall(known, drawn, neighbors=config.neighbors)
    return {
        "frechet_distance": frechet_distance(generated.moments, real.moments),
        "kid": kernel.value,
        "kid_standard_error": kernel.standard_error,
        "precision": precision,
        "recall": recall,
    }


def _describe(
    config: EvaluateConfig,
    sampler: ImageSampler,
    extractor: FeatureExtractor,
    data: ImageData,
    generated: ImageStatistics,
) -> dict[str, Any]:
    """Give the part of the report that says what the distances depend on."""
    count = generated.moments.count
    overlap = training_overlap(config.model, data)
    from_model = config.samples is None
    return {
        "seconds_per_image": generated.seconds / count if from_model else None,
        "num_images": count,
        "num_reference": len(data),
        "num_kept": config.num_kept,
        "kid_subsets": config.kid_subsets,
        "neighbors": config.neighbors,
        "features": extractor.name,
        "feature_dim": generated.moments.dim,
        "resize": extractor.resize,
        "reference": data.fingerprint,
        "reference_data": source_name(config.data),
        "reference_split": config.split,
        "reference_changes": data.changes,
        "reference_overlap": overlap.to_dict(),
        "sampler": _described(config, sampler),
        "device": process_state().device.type,
        "versions": library_versions(),
        "warnings": [
            *_warnings(count, len(data)),
            *_changes(data),
            *described_reference(overlap),
        ],
    }


def _described(config: EvaluateConfig, sampler: ImageSampler) -> dict[str, Any]:
    """Say what determines the images; their classes in words unless they were given."""
    if config.samples is not None:
        return read_manifest(Path(config.samples))
    described = sampler.describe()
    if config.class_labels is None and sampler.options.class_labels is not None:
        described["class_labels"] = AS_OFTEN
    return described


def _warnings(num_images: int, num_reference: int) -> list[str]:
    """Warn of sets so small that their Fréchet distance is mostly bias."""
    return [
        f"the Fréchet distance is biased upwards by about 1 / N, and {count:,} {name} images are "
        f"under {_UNBIASED_FROM:,}: compare it only with others from as many; KID is unbiased"
        for name, count in (("drawn", num_images), ("reference", num_reference))
        if count < _UNBIASED_FROM
    ]


def _changes(data: ImageData) -> list[str]:
    """Say what was done to the reference images, which the distances are to."""
    if not data.changes:
        return []
    counts = ", ".join(f"{count} {name}" for name, count in data.changes.items())
    return [f"the reference images were changed to those that the model could make ({counts})"]


def _statistics_dir(config: EvaluateConfig) -> Path | None:
    """Say where statistics of the reference are kept; None where decoded images are by default."""
    if config.statistics_dir is None and config.cache_dir is not None:
        return Path(config.cache_dir, "statistics")
    return None if config.statistics_dir is None else Path(config.statistics_dir)


def _output(config: EvaluateConfig) -> Path:
    folder = Path(config.output_dir or config.model)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
