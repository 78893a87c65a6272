"""``ddpm calibrate``: the best reverse variances and the best steps of a saved model.

ddpm calibrate model --data photos/
ddpm calibrate model --data photos/ --features inception --num_inference_steps 10 25
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ddpm_pipeline.calibration.advice import Advice, by_closed_form, by_distance
from ddpm_pipeline.calibration.choice import sampling_options, takes_advice
from ddpm_pipeline.calibration.config import DEFAULT_STEPS, SAMPLERS, CalibrateConfig
from ddpm_pipeline.calibration.network import calibrate
from ddpm_pipeline.calibration.pictures import draw_figures, reconstructions
from ddpm_pipeline.calibration.report import (
    CalibrationReport,
    bits_per_dim_table,
    distance_table,
    measured_samplers,
)
from ddpm_pipeline.common import (
    on_main,
    printable,
    process_state,
    shared_accelerator,
    stream_generator,
    weights_hash,
    write_json,
    write_picture,
    written_aside,
)
from ddpm_pipeline.data import (
    ImageData,
    ModelBatches,
    open_measured,
    source_name,
)
from ddpm_pipeline.diffusion import LEARNED_VARIANCES, check_num_steps
from ddpm_pipeline.evaluation import (
    FeatureExtractor,
    check_classes_of_conditions,
    check_count,
    classes_as_often,
    classes_of_images,
    frechet_distance,
    load_features,
    reference_statistics,
    sample_statistics,
)
from ddpm_pipeline.networks import Condition, facts_of, rows_per_call, trained_classes
from ddpm_pipeline.pipelines import DDPMPipeline, ImageSampler, SamplingOptions
from ddpm_pipeline.schedulers import (
    CALIBRATED_VARIANCES,
    Calibration,
    DDPMScheduler,
    Solver,
)

__all__ = ["calibrate_saved_model"]

logger = logging.getLogger(__name__)


# Images of a forward pass on a CPU; elements of one on a GPU.
_ROWS, _ELEMENTS_ON_GPUS = 64, 2**21


def calibrate_saved_model(config: CalibrateConfig) -> CalibrationReport:
    """Calibrate a saved model; write calibration.json, its plots, and the model's scheduler.

    Under `accelerate launch` every process must call it.

    Arguments:
        config: All options.
    Returns:
        The tables over K, as in calibration.json.
    Raises:
        ValueError: If an option, the images or the model do not fit each other.
        OSError: If the model cannot be loaded.
    """
    state = process_state()
    pipe = DDPMPipeline.from_pretrained(config.model).to(state.device)
    pipe.set_progress_bar_config(disable=True)
    scheduler = _analytic_scheduler(pipe)
    _check_features(config, scheduler)
    if facts_of(pipe.unet).conditioned_on is not None:
        check_classes_of_conditions(pipe.unet, config.class_labels)
    steps = _steps(config, len(scheduler))
    extractor = None if config.features is None else load_features(config.features, pipe.device)
    data = _open_data(config, pipe)
    if extractor is not None:  # what cannot be measured fails here, not after calibrating
        dim = extractor(data.pictures(range(1))).shape[1]
        check_count(config.num_images, dim, " by num_images")
        check_count(len(data), dim, " in data")
    output = Path(config.output_dir or config.model)
    output.mkdir(parents=True, exist_ok=True)
    scheduler.set_calibration(_calibrate(config, pipe, scheduler, data, output))
    distances = _distances(config, pipe, scheduler, data, extractor, steps)
    advice = _advice(config, scheduler, distances)
    kept = _kept_scheduler(config, pipe.scheduler, scheduler.calibration, distances, advice)
    report = _report(config, scheduler, data, extractor, steps, distances, kept, advice)

    def keep() -> None:
        _write(output, report, _described(config, pipe, data), scheduler.calibration)
        draw_figures(output, config, scheduler, report)
        strip = reconstructions(pipe, scheduler, data, seed=config.seed)
        write_picture(output / "progressive.png", strip)
        if config.save:
            with written_aside(Path(config.model) / "scheduler") as aside:
                kept.save_pretrained(aside)

    on_main(keep, state)
    return report


def _calibrate(
    config: CalibrateConfig,
    pipe: DDPMPipeline,
    scheduler: DDPMScheduler,
    data: ImageData,
    output: Path,
) -> Calibration:
    return calibrate(
        pipe.unet,
        scheduler,
        ModelBatches(data, _rows(config, pipe, data)),
        generator=stream_generator("calibration_noise", config.seed),
        num_forwards=config.num_forwards,
        precision=config.target_standard_error,
        estimate=config.estimate,
        accelerator=shared_accelerator(),
        decoder="discretized" if data.scale is None else "continuous",
        state_file=output / "calibration.state",
        progress=True,
    )


def _rows(config: CalibrateConfig, pipe: DDPMPipeline, data: ImageData) -> int:
    """Give the images of one forward pass."""
    if config.batch_size is not None:
        return config.batch_size
    return rows_per_call(
        pipe.unet, data.shape[1:], pipe.device, on_cpu=_ROWS, elements=_ELEMENTS_ON_GPUS
    )


def _report(
    config: CalibrateConfig,
    scheduler: DDPMScheduler,
    data: ImageData,
    extractor: FeatureExtractor | None,
    steps: Sequence[int],
    distances: dict[str, dict[int, float]],
    kept: DDPMScheduler,
    advice: Advice | None,
) -> CalibrationReport:
    calibration = scheduler.calibration
    return CalibrationReport(
        bits_per_dim=bits_per_dim_table(
            calibration, scheduler.schedule, config.samplers, config.spacings, steps
        ),
        standard_error=calibration.standard_error,
        frechet_distance=distances,
        num_frechet_images=config.num_images,
        num_images=calibration.num_images,
        num_forwards=calibration.num_forwards,
        features=None if extractor is None else extractor.name,
        variance_type=kept.variance_type,
        timestep_spacing=kept.timestep_spacing,
        data=data.fingerprint,
        advice=None if advice is None else advice.sentence,
        solver=kept.solver.name,
        num_inference_steps=kept.solver.num_inference_steps,
        eta=kept.solver.eta,
    )


def _described(config: CalibrateConfig, pipe: DDPMPipeline, data: ImageData) -> dict[str, Any]:
    """Say what was measured, on which images; no path and no host."""
    return {
        "data": source_name(config.data),
        "split": config.split,
        "changes": data.changes,
        "weights": weights_hash(pipe.unet),
        "estimate": config.estimate,
        "seed": config.seed,
    }


def _analytic_scheduler(pipe: DDPMPipeline) -> DDPMScheduler:
    """Give the model's scheduler, with analytic variances unless they are learned.

    Its steps are DDPM's whatever the model was saved with, so that every row of the table is drawn
    as it is called.
    """
    scheduler = pipe.scheduler
    if not isinstance(scheduler, DDPMScheduler):
        raise ValueError(
            f"the model's scheduler must be a DDPMScheduler, got {type(scheduler).__name__}"
        )
    is_learned = scheduler.variance_type in LEARNED_VARIANCES
    options = {} if is_learned else {"variance_type": "analytic"}
    return DDPMScheduler.from_config(scheduler.config, solver="ddpm", **options)


def _check_features(config: CalibrateConfig, scheduler: DDPMScheduler) -> None:
    if config.features is not None and scheduler.variance_type in LEARNED_VARIANCES:
        raise ValueError("features cannot be given for a model with learned variances")


def _kept_scheduler(
    config: CalibrateConfig,
    saved: DDPMScheduler,
    calibration: Calibration,
    distances: dict[str, dict[int, float]],
    advice: Advice | None,
) -> DDPMScheduler:
    """Give the scheduler that the model is saved with: its own, calibrated, and no worse."""
    if advice is not None and advice.is_as_good and takes_advice(config, saved):
        options = {"solver": advice.solver, **advice.options}
        if saved.variance_type in LEARNED_VARIANCES:
            options.pop("variance_type", None)
    else:
        options = sampling_options(config, saved, distances)
        is_named = config.variance_type in CALIBRATED_VARIANCES or config.timestep_spacing
        is_replaceable = config.solver == "auto" and saved.solver.num_inference_steps is not None
        if is_named and is_replaceable:
            # A calibration chose it, and now the user names how DDPM's own steps are taken.
            options = {"solver": Solver(), **options}
    options = {"variance_type": saved.variance_type, **options}
    return saved.with_calibration(
        calibration, last_noise_levels=saved.last_noise_levels, **options
    )


def _advice(
    config: CalibrateConfig, scheduler: DDPMScheduler, distances: dict[str, dict[int, float]]
) -> Advice | None:
    if distances:
        return by_distance(distances, len(scheduler), config.num_images)
    return by_closed_form(scheduler.calibration, scheduler.schedule)


def _steps(config: CalibrateConfig, T: int) -> list[int]:
    """Give the values of K in the tables, with T; of the usual ones those that T allows."""
    steps = config.num_inference_steps
    if steps == DEFAULT_STEPS:
        steps = tuple(K for K in steps if K <= T)
    return sorted({*(check_num_steps(K, T) for K in steps), T})


def _open_data(config: CalibrateConfig, pipe: DDPMPipeline) -> ImageData:
    """Open the images in random order, and warn if they had to be changed."""
    data = open_measured(config, pipe.unet)
    if data.changes:
        logger.warning(
            "images of %s do not fit the model (%s): bits/dim and variances are those of what "
            "they were changed to",
            printable(str(config.data)),
            ", ".join(f"{count} {change}" for change, count in data.changes.items()),
        )
    generator = stream_generator("calibration_order", config.seed)
    return data.subset(torch.randperm(len(data), generator=generator))


def _distances(
    config: CalibrateConfig,
    pipe: DDPMPipeline,
    scheduler: DDPMScheduler,
    data: ImageData,
    extractor: FeatureExtractor | None,
    steps: Sequence[int],
) -> dict[str, dict[int, float]]:
    if extractor is None:
        return {}
    real = reference_statistics(data, extractor)
    told, labels = _told(config, pipe, data)

    def distance(sampler: str, spacing: str, K: int) -> float:
        choice = SAMPLERS[sampler]
        own = scheduler.with_calibration(
            scheduler.calibration,
            variance_type=choice.variance_type,
            timestep_spacing=spacing,
            solver=choice.solver or Solver(),
        )
        options = SamplingOptions(
            model=config.model,
            seed=config.seed,
            num_inference_steps=K,
            eta=choice.eta,
            class_labels=labels,
            batch_size=_rows(config, pipe, data),
        )
        drawn = sample_statistics(
            ImageSampler(DDPMPipeline(pipe.unet, own), options, own, condition=told),
            extractor,
            config.num_images,
        )
        found = frechet_distance(drawn.moments, real.moments)
        logger.info("%s %s, K = %d: Fréchet distance %.4g", sampler, spacing, K, found)
        return found

    rows = measured_samplers(config.samplers, scheduler.calibration)
    return distance_table(distance, rows, config.spacings, steps, len(scheduler))


def _told(
    config: CalibrateConfig, pipe: DDPMPipeline, data: ImageData
) -> tuple[Condition | None, Sequence[int | str] | None]:
    """Give what images to draw are conditioned on, and their classes; of one image both."""
    config_of_unet, count = pipe.unet.config, config.num_images
    told = None
    if data.given is not None:
        rows = torch.arange(min(count, len(data)))  # of images in random order
        told = data.given.of(rows, None)
        if data.labels is not None:
            return told, classes_of_images(data, config_of_unet, rows, count).labels
    if config.class_labels is not None:
        return told, config.class_labels
    if data.labels is None:
        return told, trained_classes(pipe.unet)
    return told, classes_as_often(data, config_of_unet, count, seed=config.seed).labels


def _write(
    output: Path, report: CalibrationReport, measured: dict[str, Any], calibration: Calibration
) -> None:
    content = {
        "report": report.to_dict(),
        "measured": measured,
        "calibration": calibration.to_dict(),
    }
    write_json(output / "calibration.json", content, ascii_only=False)
