"""``ddpm score``: the images that a model thinks least likely, and a file with all scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ddpm_pipeline.cli.measuring import run_measurement
from ddpm_pipeline.likelihood import ScoreConfig

__all__ = ["run"]


def run(argv: Sequence[str]) -> None:
    """Score as the arguments say, and print the table and where the scores are."""
    run_measurement(ScoreConfig, argv, prog="ddpm score", measure=_measure)


def _measure(config: ScoreConfig) -> Iterator[object]:
    """Yield the table, and the path of the scores."""
    from ddpm_pipeline.likelihood import output_folder, scores_of_saved_model

    yield f"{scores_of_saved_model(config)}\n{output_folder(config) / 'scores.csv'}"
