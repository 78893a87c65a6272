"""``ddpm calibrate``: a model's best variances and timesteps, as tables and in its scheduler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddpm_pipeline.calibration import CalibrateConfig, without_bound
from ddpm_pipeline.cli.measuring import run_measurement

if TYPE_CHECKING:
    from ddpm_pipeline.calibration import CalibrationReport

__all__ = ["run"]

_NO_ADVICE = {
    True: "No number of steps is recommended: the closed form for Gaussian images finds none that "
    "is near enough, or has no spectrum to start from; distances, with features, tell more.",
    False: "No number of steps is recommended: there is no row that has all steps beside fewer.",
}


def run(argv: Sequence[str]) -> None:
    """Calibrate as the arguments say, and print the tables and what became of the model."""
    run_measurement(CalibrateConfig, argv, prog="ddpm calibrate", measure=_measure)


def _measure(config: CalibrateConfig) -> Iterator[object]:
    """Yield the tables, and what a reader of them should know."""
    from ddpm_pipeline.calibration import calibrate_saved_model

    report = calibrate_saved_model(config)
    yield report.tables()
    yield from _notes(config, report)


def _notes(config: CalibrateConfig, report: CalibrationReport) -> Iterator[str]:
    """Yield what a reader of the tables should know, with what the model samples with now."""
    if config.features is None:
        note = "Bits/dim rank likelihoods, not images: for those compare distances, with features."
        if left_out := without_bound(config.samplers):
            note += f" No bits/dim for {', '.join(left_out)}: "
            note += "a bound is known of DDPM's steps alone."
        yield note
    yield report.advice or _NO_ADVICE[config.features is None]
    saved = "The model is as it was"
    if config.save:
        saved = (
            f"{Path(config.model) / 'scheduler'} has the calibration; the model samples with "
            f"{_sampler(report)}, which --solver, --variance_type and --timestep_spacing choose"
        )
    yield f"{saved}; calibration.json and plots are in {config.output_dir or config.model}."


def _sampler(report: CalibrationReport) -> str:
    """Say what the model samples with."""
    own = f"variance_type {report.variance_type} and timestep_spacing {report.timestep_spacing}"
    if report.num_inference_steps is None and report.solver == "ddpm":
        return own
    steps = f"{report.num_inference_steps} steps of " if report.num_inference_steps else ""
    noise = f" with eta = {report.eta:g}" if report.eta else ""
    return f"{steps}solver {report.solver}{noise}, {own}"
