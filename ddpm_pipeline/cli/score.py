"""TODO cli.score."""

from __future__ import annotations

from collections.abc import Sequence

from ddpm_pipeline.cli.arguments import parse
from ddpm_pipeline.common import process_state
from ddpm_pipeline.likelihood import ScoreConfig, output_folder, scores_of_saved_model

__all__ = ["run"]


def run(argv: Sequence[str]) -> None:
    """Score as the arguments say, and print the table and the extremes."""
    if argv and not argv[0].startswith("-"):
        argv = ["--model", *argv]
    config = parse(ScoreConfig, argv, prog="ddpm score")
    report = scores_of_saved_model(config)
    if process_state().is_main_process:
        print(report)  # noqa: T201
        print(output_folder(config) / "scores.csv")  # noqa: T201
