"""What the commands share that measure a saved model on images: bound, score, calibrate, evaluate.

run_measurement(BoundConfig, argv, prog="ddpm bound", measure=_measure)

Options are read, what they name is looked for, a folder for the results is found, and only then
torch is imported and the work begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ddpm_pipeline.cli.arguments import naming_options, parse
from ddpm_pipeline.cli.guiding import guide_not_here
from ddpm_pipeline.cli.inputs import ask_hub, not_here, require_features, require_split
from ddpm_pipeline.cli.printing import say
from ddpm_pipeline.common import check_exists, check_output_folder, no_empty_folder
from ddpm_pipeline.pipelines import check_saved_classes, check_saved_steps

__all__ = ["run_measurement"]


T = TypeVar("T")


def run_measurement(
    options: type[T],
    argv: Sequence[str],
    *,
    prog: str,
    measure: Callable[[T], Iterable[object]],
) -> None:
    """Measure as the arguments say, and print what comes of it.

    Arguments:
        options: The dataclass of the command's options, with model, data, output_dir and
            num_inference_steps; it may have split, bound_data, bound_split, training_data,
            training_split, samples, features and class_labels too.
        argv: The arguments.
        prog: How the command is called.
        measure: Does the work, and gives the paragraphs to print.
    Raises:
        SystemExit: After --help and after a mistake in an option.
        ValueError, OSError: If an option, or what it names, is not allowed.
    """
    with naming_options(options):
        config = parse(options, argv, prog=prog, positional=("model",))
        output = config.output_dir or config.model
        _check_places(config, output)
        with no_empty_folder(output):
            paragraphs = [*measure(config)]
        say(*paragraphs)


def _check_places(config: object, output: str) -> None:
    """Refuse what is not there and where nothing can be written; the Hub is asked last."""
    more = {name: getattr(config, name, None) for name in ("bound_data", "training_data")}
    on_hub = not_here(model=config.model, data=config.data, **more)
    on_hub += guide_not_here(getattr(config, "guidance_model", None))
    require_features(getattr(config, "features", None))
    samples = getattr(config, "samples", None)
    if samples is not None:
        check_exists("samples", samples, "; `ddpm sample` draws them")
    check_output_folder("output_dir", output)
    require_split(config.data, getattr(config, "split", None))
    for part in ("bound", "training"):
        require_split(
            getattr(config, f"{part}_data", None), getattr(config, f"{part}_split", None)
        )
    steps = config.num_inference_steps
    check_saved_steps(config.model, *(steps if isinstance(steps, tuple) else [steps]))
    if getattr(config, "class_labels", None) is not None:
        check_saved_classes(
            config.model, config.class_labels, getattr(config, "null_guidance", 1.0)
        )
    ask_hub(on_hub)
