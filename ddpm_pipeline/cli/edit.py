"""``ddpm edit``: images varied, filled, restored, walked between, or found in the noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpm_pipeline.cli.arguments import naming_options, parse
from ddpm_pipeline.cli.guiding import guide_not_here, guided_by_saved
from ddpm_pipeline.cli.inputs import ask_hub, not_here
from ddpm_pipeline.cli.printing import say
from ddpm_pipeline.common import check_exists, check_output_folder
from ddpm_pipeline.pipelines import (
    EditConfig,
    check_saved_classes,
    check_saved_condition,
    check_saved_steps,
)

__all__ = ["EditArguments", "run"]


@dataclass(frozen=True, kw_only=True)
class EditArguments(EditConfig):
    """Edit images by a saved model; `--model` may be left out before its name."""


def run(argv: Sequence[str]) -> None:
    """Edit images as the arguments say, and print where the results are."""
    with naming_options(EditArguments):
        arguments = parse(EditArguments, argv, prog="ddpm edit", positional=("model",))
        on_hub = not_here(model=arguments.model)
        on_hub += guide_not_here(arguments.guidance_model)
        for name in ("image", "condition"):
            for path in getattr(arguments, name) or ():
                check_exists(name, path)
        if arguments.mask is not None:
            check_exists("mask", arguments.mask)
        _check_output(arguments)
        check_saved_steps(arguments.model, arguments.num_inference_steps)
        check_saved_classes(arguments.model, arguments.class_labels, arguments.null_guidance)
        on = arguments.condition and arguments.condition[0]
        check_saved_condition(arguments.model, on, arguments.condition_numbers)
        ask_hub(on_hub)

        from ddpm_pipeline.pipelines import edit_images

        with guided_by_saved(arguments) as ready:
            say(edit_images(ready))


def _check_output(arguments: EditArguments) -> None:
    """Refuse a folder that cannot be written to, or that has files."""
    folder = Path(arguments.output)
    check_output_folder("output", folder)
    if not arguments.overwrite and folder.is_dir() and any(folder.iterdir()):
        raise ValueError(
            f"output {arguments.output!r} is not empty; overwrite=True writes into it"
        )
