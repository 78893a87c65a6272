"""``ddpm calibrate``: a model's best variances and timesteps, as tables and in its scheduler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ddpm_pipeline.calibration import CalibrateConfig, without_bound
from ddpm_pipeline.cli.arguments import parse
from ddpm_pipeline.cli.inputs import require_data, require_features, require_model
from ddpm_pipeline.common import check_output_folder, no_empty_folder

__all__ = ["run"]


def run(argv: Sequence[str]) -> None:
    """Calibrate as the arguments say, and print the tables and what became of the model."""
    config = parse(CalibrateConfig, argv, prog="ddpm calibrate", positional=("model",))
    require_model(config.model)
    require_data(data=config.data)
    require_features(config.features)
    output = config.output_dir or config.model
    check_output_folder("output_dir", output)

    from ddpm_pipeline.calibration import calibrate_saved_model
    from ddpm_pipeline.common import process_state

    with no_empty_folder(output):
        report = calibrate_saved_model(config)
    if process_state().is_main_process:
        notes = _notes(config, report.variance_type, report.timestep_spacing)
        print(report.table(), *notes, sep="\n\n")  # noqa: T201


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
