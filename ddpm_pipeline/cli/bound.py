"""TODO cli.bound."""

from __future__ import annotations

from collections.abc import Sequence

from ddpm_pipeline.cli.arguments import parse
from ddpm_pipeline.common import process_state
from ddpm_pipeline.likelihood import BoundConfig, bound_of_saved_model

__all__ = ["run"]


def run(argv: Sequence[str]) -> None:
    """Measure as the arguments say, and print the table."""
    if argv and not argv[0].startswith("-"):
        argv = ["--model", *argv]
    report = bound_of_saved_model(parse(BoundConfig, argv, prog="ddpm bound"))
    if process_state().is_main_process:
        print(report)  # noqa: T201
