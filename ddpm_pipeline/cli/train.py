"""``ddpm train``: every field of ``TrainingConfig`` as an option."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ddpm_pipeline.cli.arguments import naming_options, parse
from ddpm_pipeline.cli.inputs import HubName, ask_hub, not_here, require_features
from ddpm_pipeline.cli.mistakes import option_names, underscored
from ddpm_pipeline.cli.printing import complain, say
from ddpm_pipeline.common import as_typed, at_home, check_exists, is_repo_id, printable
from ddpm_pipeline.training import (
    PRESETS,
    TrainingConfig,
    as_given,
    check_sources,
    check_splits,
    check_start,
    check_typed,
    giving_way,
    has_checkpoint,
    idle_options,
)

__all__ = ["TrainArguments", "parse_arguments", "run"]


_PROG = "ddpm train"
NOT_PUSHED = 3  # the exit code

# Options that diffusers' training example has under other names.
_STOCK_NAMES = {"--ema_max_decay": "--ema_decay"}


@dataclass(frozen=True)
class TrainArguments:
    """Train a model. Options have the names of diffusers' training example."""

    training: TrainingConfig
    preset: Literal["default", "ddpm"] = "default"
    """What all other options are unless given: our defaults, or the recipe of Ho et al. 2020."""
    config: Path | None = None
    """A training_config.json that says what all other options are unless given."""
    dry_run: bool = False
    """Print the resolved options, the classes, the size, cost and time of the run, and stop."""


def run(argv: Sequence[str]) -> None:
    """Train as the arguments say."""
    with naming_options(TrainArguments), _explaining_memory():
        arguments = parse_arguments(argv)
        _check_places(arguments)
        logger = logging.getLogger("ddpm_pipeline")
        logger.setLevel(logging.INFO)
        for idle in idle_options(arguments.training, sorted(_typed_names(argv))):
            logger.warning("%s", as_typed(idle, option_names(TrainArguments)))
        (_dry_run if arguments.dry_run else _train)(arguments.training)


@contextmanager
def _explaining_memory() -> Iterator[None]:
    """Have errors in the block say what helps where memory is short."""
    try:
        yield
    except Exception as error:
        message = str(error)
        if "out of memory" in message.lower() or "can't allocate memory" in message:
            first = message.strip().splitlines()[0]
            said = (
                f"{first}; a smaller train_batch_size (with more gradient_accumulation_steps) or "
                "gradient_checkpointing needs less"
            )
            error.args = (said,)
        raise


def parse_arguments(argv: Sequence[str]) -> TrainArguments:
    """Read the options of a run; --preset and --config choose the defaults of the others.

    What is given wins: a default of the preset or the file that would overrule it is taken back.

    Raises:
        SystemExit, ValueError, ImportError: As ``arguments.parse``.
    """
    argv = [_ours(word) for word in argv]
    chosen = _first_look(argv)
    defaults = PRESETS.get(chosen.preset, PRESETS["default"])
    typed, filed = _typed_names(argv), frozenset()
    if chosen.config is not None:
        defaults = _config_of(chosen.config)
        filed = defaults.given
    check_typed(typed)
    grid_steps = defaults.ddpm_num_inference_steps
    defaults = giving_way(defaults, typed)
    steps = chosen.ddpm_num_steps
    if grid_steps and steps and steps > 0 and "ddpm_num_inference_steps" not in typed:
        defaults = defaults.replace(ddpm_num_inference_steps=min(grid_steps, steps))
    with as_given(filed | typed):
        return parse(TrainArguments, argv, prog=_PROG, default=TrainArguments(training=defaults))


def _ours(word: str) -> str:
    """Give an option of diffusers' example the name that it has here, with its value if any."""
    option, equals, value = word.partition("=")
    name = _STOCK_NAMES.get(underscored(option))
    return word if name is None else f"{name}{equals}{value}"


def _first_look(argv: Sequence[str]) -> argparse.Namespace:
    """Read what decides on the defaults of other options."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--preset", default="default")
    first.add_argument("--config")
    first.add_argument("--ddpm_num_steps", "--ddpm-num-steps", type=int)
    try:
        return first.parse_known_args(argv)[0]
    except argparse.ArgumentError:  # an option without its value, which the second parser refuses
        return argparse.Namespace(preset="default", config=None, ddpm_num_steps=None)


def _config_of(path: str) -> TrainingConfig:
    """Read the options in a file, and name it where they are wrong."""
    file = Path(at_home("--config", path))
    check_exists("--config", path)
    if not file.is_file():
        raise IsADirectoryError(f"--config={path!r} must be a file, but is a folder")
    try:
        return TrainingConfig.from_json(file, derived=False)
    except ValueError as error:
        raise ValueError(f"--config={path!r}: {error}") from None


def _typed_names(argv: Sequence[str]) -> set[str]:
    """Find the options of training that are on the command line."""
    known = TrainingConfig.__dataclass_fields__
    words = {underscored(word.partition("=")[0]) for word in argv if word.startswith("--")}
    names = {word.removeprefix("--") for word in words}
    negated = {name.removeprefix("no_") for name in names if name.startswith("no_")}
    return {name for name in names | negated if name in known}


def _check_places(arguments: TrainArguments) -> None:
    """Refuse data that are nowhere, and a run that could not begin."""
    config = arguments.training
    check_sources(config)
    require_features(config.validate_fid_features, "validate_fid_features")
    on_hub = not_here(dataset_name=config.dataset_name)
    pretrained = config.pretrained_model_name_or_path
    if pretrained is not None and is_repo_id(pretrained) and not has_checkpoint(config):
        on_hub += [] if Path(pretrained).exists() else [HubName("model", pretrained)]
    if not arguments.dry_run:
        check_start(config)
    check_splits(config)
    ask_hub(on_hub)


def _dry_run(config: TrainingConfig) -> None:
    """Print what a run would do and need."""
    from ddpm_pipeline.training import dry_run

    say(dry_run(config))


def _train(config: TrainingConfig) -> None:
    """Train, and print what came of it."""
    from ddpm_pipeline.training import train

    result = train(config)
    if result.push_error is not None:
        complain(
            "ddpm train",
            f"what was trained is saved in {str(result.output_dir)!r}, but is not on the Hub: "
            f"{result.push_error}; `ddpm push` tries again",
        )
        raise SystemExit(NOT_PUSHED)
    if result.finished:
        loss = "" if result.loss is None else f", loss {result.loss:.4f}"
        place = printable(str(result.output_dir))
        say(f"model after {result.global_step} steps{loss}: {place}")
