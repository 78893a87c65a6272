"""``ddpm calibrate``: a model's best variances and timesteps, as tables and in its scheduler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ddpm_pipeline.calibration import CalibrateConfig, without_bound
from ddpm_pipeline.cli.measuring import run_measurement

__all__ = ["run"]


def run(argv: Sequence[str]) -> None:
    """Calibrate as the arguments say, and print the tables and what became of the model."""
    run_measurement(CalibrateConfig, argv, prog="ddpm calibrate", measure=_measure)


def _measure(config: CalibrateConfig) -> Iterator[object]:
    """Yield the tables, and what a reader of them should know."""
    from ddpm_pipeline.calibration import calibrate_saved_model

    report = calibrate_saved_model(config)
    yield report.table()
    yield from _notes(config, report.variance_type, report.timestep_spacing)


def _notes(config: CalibrateConfig, variance_type: str, timestep_spacing: str) -> Iterator[str]:
    """Yield what a reader of the tables should know, with what the model samples with now."""
    if config.features is None:
        note = "Bits/dim rank likelihoods, not images: for those compare distances, with features."
        if left_out := without_bound(config.samplers):
            note += f" No bits/dim for {', '.join(left_out)}: the bound of DDIM is infinite."
        yield note
    saved = "The model is as it was"
    if config.save:
        saved = (
            f"{Path(config.model) / 'scheduler'} has the calibration and samples with "
            f"variance_type {variance_type} and timestep_spacing {timestep_spacing} from now on"
        )
    if config.save and config.variance_type == "auto" and config.features is None:
        saved += ", as before: --variance_type and --timestep_spacing change that"
    yield f"{saved}; calibration.json and plots are in {config.output_dir or config.model}."
