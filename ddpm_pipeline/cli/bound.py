"""``ddpm bound``: the bits per dimension of a saved model on images, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ddpm_pipeline.cli.measuring import run_measurement
from ddpm_pipeline.likelihood import BoundConfig

__all__ = ["run"]


def run(argv: Sequence[str]) -> None:
    """Measure as the arguments say, and print the table."""
    run_measurement(BoundConfig, argv, prog="ddpm bound", measure=_measure)


def _measure(config: BoundConfig) -> Iterator[object]:
    """Yield the table, and that of the flow if it is asked for."""
    from ddpm_pipeline.likelihood import bound_of_saved_model, check_flow, flow_of_saved_model

    if config.ode:
        check_flow(config)
    report = bound_of_saved_model(config)
    yield report
    if config.ode:
        yield flow_of_saved_model(config, report)
