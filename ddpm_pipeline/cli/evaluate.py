"""``ddpm evaluate``: distances, precision and recall of a model's images, in one table."""

from __future__ import annotations

from collections.abc import Sequence

from ddpm_pipeline.cli.arguments import parse
from ddpm_pipeline.cli.inputs import require_data, require_features, require_model
from ddpm_pipeline.common import check_exists, check_output_folder, no_empty_folder
from ddpm_pipeline.evaluation import EvaluateConfig

__all__ = ["run"]


def run(argv: Sequence[str]) -> None:
    """Evaluate as the arguments say, and print the table."""
    config = parse(EvaluateConfig, argv, prog="ddpm evaluate", positional=("model",))
    require_model(config.model)
    require_data(data=config.data, bound_data=config.bound_data)
    require_features(config.features)
    if config.samples is not None:
        check_exists("samples", config.samples, "; `ddpm sample` draws them")
    output = config.output_dir or config.model
    check_output_folder("output_dir", output)

    from ddpm_pipeline.common import process_state
    from ddpm_pipeline.evaluation import evaluate

    with no_empty_folder(output):
        report = evaluate(config)
    if process_state().is_main_process:
        print(report.table())  # noqa: T201
