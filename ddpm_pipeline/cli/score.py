"""``ddpm score``: the images that a model thinks least likely, and a file with all scores."""

from __future__ import annotations

from collections.abc import Sequence

from ddpm_pipeline.cli.arguments import parse
from ddpm_pipeline.cli.inputs import require_data, require_model
from ddpm_pipeline.common import check_output_folder, no_empty_folder
from ddpm_pipeline.likelihood import ScoreConfig

__all__ = ["run"]


def run(argv: Sequence[str]) -> None:
    """Score as the arguments say, and print the table and where the scores are."""
    config = parse(ScoreConfig, argv, prog="ddpm score", positional=("model",))
    require_model(config.model)
    require_data(data=config.data)
    output = config.output_dir or config.model
    check_output_folder("output_dir", output)

    from ddpm_pipeline.common import process_state
    from ddpm_pipeline.likelihood import output_folder, scores_of_saved_model

    with no_empty_folder(output):
        report = scores_of_saved_model(config)
    if process_state().is_main_process:
        print(report)  # noqa: T201
        print(output_folder(config) / "scores.csv")  # noqa: T201
