"""``ddpm evaluate``: distances, precision and recall of a model's images, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ddpm_pipeline.cli.guiding import guided_by_saved
from ddpm_pipeline.cli.measuring import run_measurement
from ddpm_pipeline.evaluation import EvaluateConfig

__all__ = ["run"]


def run(argv: Sequence[str]) -> None:
    """Evaluate as the arguments say, and print the table."""
    run_measurement(EvaluateConfig, argv, prog="ddpm evaluate", measure=_measure)


def _measure(config: EvaluateConfig) -> Iterator[object]:
    """Yield the table."""
    from ddpm_pipeline.evaluation import evaluate

    with guided_by_saved(config) as ready:
        yield evaluate(ready).table()
