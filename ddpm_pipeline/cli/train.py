"""``ddpm train``: every field of ``TrainingConfig`` as an option."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ddpm_pipeline.cli.arguments import complain, parse
from ddpm_pipeline.cli.inputs import require_data
from ddpm_pipeline.training import PRESETS, TrainingConfig, check_sources, check_start

__all__ = ["TrainArguments", "parse_arguments", "run"]


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
    """Print the resolved options, the size and cost of the model and the run, and do nothing."""


def run(argv: Sequence[str]) -> None:
    """Train as the arguments say."""
    arguments = parse_arguments(argv)
    _check_places(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("ddpm_pipeline").setLevel(logging.INFO)
    (_dry_run if arguments.dry_run else _train)(arguments.training)


def parse_arguments(argv: Sequence[str]) -> TrainArguments:
    """Read the options of a run; --preset and --config choose the defaults of the others.

    Raises:
        SystemExit, ValueError, ImportError: As ``arguments.parse``.
    """
    argv = [_STOCK_NAMES.get(word.replace("-", "_").replace("__", "--", 1), word) for word in argv]
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--preset", default="default")
    first.add_argument("--config")
    try:
        chosen, _ = first.parse_known_args(argv)
    except argparse.ArgumentError:  # an option without its value, which the second parser refuses
        chosen = argparse.Namespace(preset="default", config=None)
    defaults = PRESETS.get(chosen.preset, PRESETS["default"])
    if chosen.config is not None:
        defaults = TrainingConfig.from_json(chosen.config)
    return parse(
        TrainArguments, argv, prog="ddpm train", default=TrainArguments(training=defaults)
    )


def _check_places(arguments: TrainArguments) -> None:
    """Refuse data that are nowhere, and a run that could not begin."""
    config = arguments.training
    check_sources(config)
    require_data(dataset_name=config.dataset_name)
    if not arguments.dry_run:
        check_start(config)


def _dry_run(config: TrainingConfig) -> None:
    """Print what a run would do and need."""
    from ddpm_pipeline.training import dry_run

    numbers = dry_run(config)
    if _speaks():
        print(numbers)  # noqa: T201


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
    if _speaks() and result.finished:
        loss = "" if result.loss is None else f", loss {result.loss:.4f}"
        print(f"model after {result.global_step} steps{loss}: {result.output_dir}")  # noqa: T201


def _speaks() -> bool:
    """Tell whether this is the process that prints, of those that train together."""
    return int(os.environ.get("RANK", "0")) == 0
