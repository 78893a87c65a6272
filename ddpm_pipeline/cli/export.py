"""``ddpm export``: a model folder of a checkpoint, as the run that made it saves its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpm_pipeline.cli.arguments import naming_options, parse
from ddpm_pipeline.cli.printing import say
from ddpm_pipeline.common import check_integer, check_new_folder, expand_home, printable
from ddpm_pipeline.training import check_has_checkpoint

__all__ = ["ExportArguments", "run"]


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Make a model folder of a training checkpoint; `--run` may be left out before its name.

    The weights are those of the average that was the best at the checkpoint.
    """

    run: str
    """The output_dir of a training run, or the folder of one of its checkpoints."""
    output: str
    """A new or empty folder for the model."""
    checkpoint: int | None = None
    """The number of updates after which the checkpoint was written; the newest unless given."""

    def __post_init__(self) -> None:
        expand_home(self, "run", "output")
        if self.checkpoint is not None:
            check_integer("checkpoint", self.checkpoint, least=0)


def run(argv: Sequence[str]) -> None:
    """Export as the arguments say, and print where the model is."""
    with naming_options(ExportArguments):
        arguments = parse(ExportArguments, argv, prog="ddpm export", positional=("run",))
        _check_places(arguments)

        from ddpm_pipeline.training import export_checkpoint

        found = export_checkpoint(arguments.run, arguments.output, arguments.checkpoint)
        say(printable(f"{arguments.output}: {found}"))


def _check_places(arguments: ExportArguments) -> None:
    """Refuse a run that is not here, and an output that cannot be or holds something."""
    if not Path(arguments.run).is_dir():
        raise FileNotFoundError(f"run: there is no folder {arguments.run!r}")
    check_has_checkpoint(arguments.run, arguments.checkpoint)
    check_new_folder("output", arguments.output)
