"""``ddpm bound``: the bits per dimension of a saved model on images, in one table."""

from __future__ import annotations

from collections.abc import Sequence

from ddpm_pipeline.cli.arguments import parse
from ddpm_pipeline.cli.inputs import require_data, require_model
from ddpm_pipeline.common import check_output_folder, no_empty_folder
from ddpm_pipeline.likelihood import BoundConfig

__all__ = ["run"]


def run(argv: Sequence[str]) -> None:
    """Measure as the arguments say, and print the table."""
    config = parse(BoundConfig, argv, prog="ddpm bound", positional=("model",))
    require_model(config.model)
    require_data(data=config.data)
    output = config.output_dir or config.model
    check_output_folder("output_dir", output)

    from ddpm_pipeline.common import process_state
    from ddpm_pipeline.likelihood import bound_of_saved_model

    with no_empty_folder(output):
        report = bound_of_saved_model(config)
    if process_state().is_main_process:
        print(report)  # noqa: T201
