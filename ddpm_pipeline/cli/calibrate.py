"""TODO cli.calibrate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ddpm_pipeline.calibration import CalibrateConfig, calibrate_saved_model, without_bound
from ddpm_pipeline.cli.arguments import parse
from ddpm_pipeline.common import process_state
from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["run"]


def run(argv: Sequence[str]) -> None:
    """Calibrate as the arguments say, and print the tables and what became of the model."""
    if argv and not argv[0].startswith("-"):
        argv = ["--model", *argv]
    config = parse(CalibrateConfig, argv, prog="ddpm calibrate")
    report = calibrate_saved_model(config)
    if process_state().is_main_process:
        print(report.table(), *_notes(config), sep="\n\n")  # noqa: T201


def _notes(config: CalibrateConfig) -> Iterator[str]:
    """What a reader of the tables should know."""
    if config.features is None:
        note = "Bits/dim rank likelihoods, not images: for those compare distances, with features."
        if left_out := without_bound(config.samplers):
            note += f" No bits/dim for {', '.join(left_out)}: the bound of DDIM is infinite."
        yield note
    written = f"calibration.json and plots are in {config.output_dir or config.model}"
    if config.save:
        folder = Path(config.model) / "scheduler"
        scheduler = DDPMScheduler.from_pretrained(folder)
        yield (
            f"{folder} has the calibration and samples with variance_type "
            f"{scheduler.variance_type} and timestep_spacing {scheduler.timestep_spacing} from "
            f"now on; {written}."
        )
    else:
        yield f"The model is as it was; {written}."
