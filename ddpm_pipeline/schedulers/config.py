r"""The scheduler's config: which options there are, and how ours pass through stock diffusers.

Stock diffusers keeps and saves config keys that start with an underscore without a warning. What
it does not know (the option values of STOCK_OPTIONS, a solver, a calibration) is therefore kept
under PRIVATE_KEY, with the nearest stock value of an option in its public key.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from ddpm_pipeline.common import PRIVATE_KEY, check_choice
from ddpm_pipeline.diffusion import (
    PROCESS_VARIANCES,
    SPACINGS,
    NoiseSchedule,
    check_num_train_timesteps,
)
from ddpm_pipeline.schedulers.choices import CALIBRATED_SPACINGS

__all__ = [
    "STOCK_OPTIONS",
    "UNCOMMON_SCHEDULES",
    "build_schedule",
    "check_scheduler_options",
    "default_config",
    "keys_at_default",
    "private_config",
    "restored_config",
]


# Option values that stock diffusers does not know, and the nearest that it does.
STOCK_OPTIONS = {
    # Stock knows the last two by name, and makes NaN of them.
    "variance_type": {
        "analytic": "fixed_small",
        "spectral": "fixed_small",
        "fixed_large_log": "fixed_large",
        "learned": "learned_range",
    },
    "timestep_spacing": {
        "quadratic": "trailing",
        "optimal": "trailing",
        "optimal_samples": "trailing",
    },
}

# Schedules that of stock diffusers only DDPMScheduler knows; the others are given their betas.
UNCOMMON_SCHEDULES = ("sigmoid", "laplace")

# Config keys of diffusers 0.1, and what they are called now.
_LEGACY_KEYS = {"timesteps": "num_train_timesteps", "clip_predicted_image": "clip_sample"}


def build_schedule(
    T: int,
    beta_start: float,
    beta_end: float,
    beta_schedule: str,
    trained_betas: np.ndarray | list[float] | None,
) -> NoiseSchedule:
    """Make the schedule that these config keys stand for."""
    check_num_train_timesteps(T)
    for key, beta in (("beta_start", beta_start), ("beta_end", beta_end)):
        if isinstance(beta, bool) or not isinstance(beta, Real):
            raise ValueError(f"{key} must be a number in (0, 1], got {beta!r}")
    if trained_betas is None:
        return NoiseSchedule.named(beta_schedule, T, beta_start, beta_end)
    if not hasattr(trained_betas, "__len__"):
        raise ValueError(f"trained_betas must be a list of numbers, got {trained_betas!r}")
    if len(trained_betas) != T:
        raise ValueError(
            f"trained_betas must have num_train_timesteps = {T} entries, got {len(trained_betas)}"
        )
    return NoiseSchedule.from_betas(trained_betas)


def check_scheduler_options(config: dict[str, Any]) -> None:
    """Refuse an option of the scheduler's config that is not allowed.

    Raises:
        ValueError: If one is not; names it, its value and what is.
    """
    for key, allowed in _CHOICES.items():
        check_choice(key, config[key], allowed)
    for key, is_allowed, allowed in _RANGES:
        value = config[key]
        if isinstance(value, bool) or not isinstance(value, Real) or not is_allowed(value):
            raise ValueError(f"{key} must be {allowed}, got {config[key]!r}")


_CHOICES: dict[str, Sequence[str]] = {
    "variance_type": PROCESS_VARIANCES,
    "prediction_type": ("epsilon", "sample", "v_prediction"),
    "timestep_spacing": (*SPACINGS, *CALIBRATED_SPACINGS),
}

_RANGES: list[tuple[str, Callable[[Any], bool], str]] = [
    ("clip_sample_range", lambda v: v > 0, "above 0"),
    ("dynamic_thresholding_ratio", lambda v: 0 <= v <= 1, "between 0 and 1"),
    ("sample_max_value", lambda v: v > 0, "above 0"),
    ("steps_offset", lambda v: isinstance(v, int) and v >= 0, "an integer of at least 0"),
]


def private_config(
    options: dict[str, str], **extras: dict[str, Any] | None
) -> tuple[dict[str, str], dict[str, Any]]:
    """Give (public values, private entry) of a config: what stock reads, and what it passes on.

    Arguments:
        options: Values of the options in STOCK_OPTIONS.
        extras: What else the private entry is to hold by name, such as a calibration; None is
            left out.
    """
    kept = {
        key: {"value": value, "stock": STOCK_OPTIONS[key][value]}
        for key, value in options.items()
        if value in STOCK_OPTIONS[key]
    }
    private = {"options": kept} if kept else {}
    private |= {name: extra for name, extra in extras.items() if extra is not None}
    return {key: option["stock"] for key, option in kept.items()}, private


def restored_config(
    config: dict[str, Any], overrides: dict[str, Any], defaults: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give (config, private entry), with our own options and the keys of diffusers 0.1 restored.

    An option that was changed since it was saved, in stock or by an override, stays changed.

    Arguments:
        config: Of any scheduler.
        overrides: Keys that are to be changed.
        defaults: Of our own scheduler.
    """
    config = dict(config)
    private = _checked_private(config.pop(PRIVATE_KEY, {}))
    defaulted = config.get("_use_default_values", [])
    if {key for key in config if not key.startswith("_")} == defaults.keys():  # not another class
        defaulted = keys_at_default(config, defaults)
    restored = {}
    for old, new in _LEGACY_KEYS.items():
        value = config.pop(old, None)
        if value is not None and (new not in config or new in defaulted):
            restored[new] = value
    for key, option in private.get("options", {}).items():
        _check_private_option(key, option)
        if key not in overrides and config.get(key) == option["stock"]:
            restored[key] = option["value"]
    if "_use_default_values" in config:  # diffusers drops the keys that it lists
        config["_use_default_values"] = [key for key in defaulted if key not in restored]
    return {**config, **restored}, private


def _checked_private(private: object) -> dict[str, Any]:
    """Refuse a private entry that we did not write.

    Raises:
        ValueError: If it is no object of objects.
    """
    values = private if isinstance(private, dict) else {"": private}
    for name, value in values.items():
        if not isinstance(value, dict):
            raise ValueError(
                f"{PRIVATE_KEY} in the scheduler's config must hold objects, got {value!r:.100} "
                f"as {name!r}"
            )
    return values


def _check_private_option(key: str, option: object) -> None:
    """Refuse a private option that is not one of ours, with its nearest in stock.

    Raises:
        ValueError: If it is not; a config must not change other keys behind their values.
    """
    known = STOCK_OPTIONS.get(key, {})
    value = option.get("value") if isinstance(option, dict) else None
    if not isinstance(value, str) or option != {"value": value, "stock": known.get(value)}:
        raise ValueError(
            f"{PRIVATE_KEY} in the scheduler's config may hold values of "
            f"{', '.join(STOCK_OPTIONS)} that stock does not know, got {key!r}: {option!r:.100}"
        )


def keys_at_default(config: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """Give the keys left at their defaults; diffusers also lists all that came by position."""
    claimed = config.get("_use_default_values", [])
    return [key for key in claimed if _is_equal(config.get(key), defaults.get(key))]


def default_config(scheduler_class: type) -> dict[str, Any]:
    """Give what the keys of a scheduler's config are if nothing is passed to it."""
    parameters = inspect.signature(scheduler_class.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.name != "self"}


def _is_equal(first: object, second: object) -> bool:
    return type(first) is type(second) and first == second
