"""The pictures that ``ddpm calibrate`` writes: figures, and what a receiver sees on the way."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ddpm_pipeline.calibration.config import CalibrateConfig
from ddpm_pipeline.calibration.figures import (
    cost_figure,
    moment_figure,
    rate_distortion_figure,
    step_figure,
    variance_figure,
)
from ddpm_pipeline.calibration.rates import progressive_reconstructions, rate_distortion
from ddpm_pipeline.calibration.report import CalibrationReport
from ddpm_pipeline.common import stream_generator, write_figure
from ddpm_pipeline.data import ImageData, reconstruction_strip
from ddpm_pipeline.diffusion import spaced_timesteps
from ddpm_pipeline.pipelines import DDPMPipeline
from ddpm_pipeline.schedulers import DDPMScheduler, timesteps_of

__all__ = ["draw_figures", "reconstructions"]

_STRIP_ROWS, _STRIP_COLUMNS = 6, 10


def draw_figures(
    output: Path, config: CalibrateConfig, scheduler: DDPMScheduler, report: CalibrationReport
) -> None:
    """Write every figure of a calibration into a folder."""
    calibration, schedule = scheduler.calibration, scheduler.schedule
    K = min(config.num_inference_steps, default=10)
    chains = {
        f"{spacing}, K = {K}": timesteps_of(calibration, schedule, K, spacing, "analytic")
        for spacing in config.spacings
    }
    curve = rate_distortion(calibration, schedule)
    figures = {
        "moments": moment_figure(calibration),
        "variances": variance_figure(calibration, schedule),
        "steps": step_figure(chains, len(schedule)),
        "rate_distortion": rate_distortion_figure({"analytic": curve}),
    }
    if report.bits_per_dim:
        figures["bits_per_dim"] = cost_figure(report.bits_per_dim, "bits/dim")
    if report.frechet_distance:
        figures["frechet_distance"] = cost_figure(report.frechet_distance, "Fréchet distance")
    for name, figure in figures.items():
        write_figure(output / f"calibration_{name}.png", figure)


def reconstructions(
    pipe: DDPMPipeline, scheduler: DDPMScheduler, data: ImageData, *, seed: int
) -> Image.Image:
    """Give what is known of some images at steps on the way to them, one row each."""
    images, labels = data.batch(range(min(_STRIP_ROWS, len(data))))
    x_0 = data.model_values(images).to(pipe.device)
    columns = min(_STRIP_COLUMNS, len(scheduler))
    seen = progressive_reconstructions(
        pipe.unet,
        scheduler.schedule,
        x_0,
        spaced_timesteps(len(scheduler), columns, "linspace"),
        prediction_type=scheduler.config.prediction_type,
        variance_type=scheduler.variance_type,
        class_labels=None if labels is None else labels.to(pipe.device),
        generator=stream_generator("calibration_strip", seed, device=pipe.device),
    )
    return reconstruction_strip(seen, x_0)
