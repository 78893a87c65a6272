"""``ddpm evaluate``: distances, precision and recall of a model's images, in one table."""

from __future__ import annotations

from collections.abc import Sequence

from ddpm_pipeline.cli.arguments import parse

__all__ = ["run"]


def run(argv: Sequence[str]) -> None:
    """Evaluate as the arguments say, and print the table."""
    from ddpm_pipeline.evaluation import EvaluateConfig, evaluate

    if argv and not argv[0].startswith("-"):
        argv = ["--model", *argv]
    report = evaluate(parse(EvaluateConfig, argv, prog="ddpm evaluate"))
    print(report.table())  # noqa: T201
