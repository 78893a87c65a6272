"""Options that a saved model's configs refuse, found out without torch and the weights.

    check_saved_steps("model", 50)                     more steps than the model's T
    check_saved_classes("model", ("cat",), 1.0)        a class that it does not know
    check_saved_condition("model", None, (0.3, 1.2))   numbers that it does not take

They read the two configs in the model's folder; of a model of the Hub they say nothing, and
whatever draws from the model checks the same by the same functions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ddpm_pipeline.diffusion import check_num_steps
from ddpm_pipeline.networks import (
    check_asked_classes,
    check_asked_condition,
    check_trained,
    class_numbers,
    facts_of,
)

__all__ = [
    "check_saved_classes",
    "check_saved_condition",
    "check_saved_steps",
]


class _Config(dict):
    """A config as diffusers has it, whose entries are attributes too."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return self.get(name)


def check_saved_steps(model: str, *steps: int | None) -> None:
    """Refuse more steps than a saved model has timesteps.

    Arguments:
        model: A folder, or a name of the Hub.
        steps: Values of num_inference_steps; None is all of them.
    Raises:
        ValueError: If one is not from 1 to T.
    """
    config = _config(model, "scheduler/scheduler_config.json")
    for K in steps:
        if config.num_train_timesteps is not None and K is not None:
            check_num_steps(K, config.num_train_timesteps)


def check_saved_classes(
    model: str, class_labels: Sequence[str | int] | None, guidance_scale: float
) -> None:
    """Refuse classes that a saved model has not, and none for a model with classes.

    Arguments:
        model: A folder, or a name of the Hub.
        class_labels, guidance_scale: As in ``SamplingOptions``.
    Raises:
        ValueError: If they are refused; says what there is to choose from.
    """
    config = _config(model, "unet/config.json")
    if not config:
        return
    unet = SimpleNamespace(config=config)
    check_asked_classes(unet, class_labels, guidance_scale)
    if class_labels is not None:
        check_trained(unet, class_numbers(unet, class_labels), guided=guidance_scale != 1)


def check_saved_condition(
    model: str, condition: str | None, condition_numbers: tuple[float, ...] | None
) -> None:
    """Refuse conditions that a saved model has not, and to leave out those that it has.

    Arguments:
        model: A folder, or a name of the Hub.
        condition, condition_numbers: As in ``SampleConfig``.
    Raises:
        ValueError: Says what the model is conditioned on.
    """
    config = _config(model, "unet/config.json")
    if config:
        facts = facts_of(SimpleNamespace(config=config))
        check_asked_condition(facts.conditioned_on, condition, condition_numbers)


def _config(model: str, part: str) -> _Config:
    """Read a config of a saved model; empty if it is not here."""
    path = Path(model, part)
    return _Config(json.loads(path.read_bytes()) if path.is_file() else {})
