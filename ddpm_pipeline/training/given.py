"""Which options somebody gave, and what gives way to them.

    config.replace(**in_place_of({"save_images_steps": 100}))
    defaults = giving_way(PRESETS["ddpm"], {"num_epochs"})      max_train_steps is free again
    derived = derived_options(config, resolved)                 what nobody gave

A default, be it ours, a preset's or a file's, never overrules, and never refuses, what was given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = [
    "check_typed",
    "derived_options",
    "giving_way",
    "idle_options",
    "in_place_of",
    "without_leftovers",
]


_EXCLUSIVE = (
    ("save_images_epochs", "save_images_steps"),
    ("save_model_epochs", "save_model_steps"),
)
"""Options of which at most one is given."""

_SOURCES = ("train_data_dir", "dataset_name")
_VALIDATION = ("validation_data_dir", "validation_split", "validation_size")

_RIVALS: tuple[tuple[str, ...], ...] = (
    *_EXCLUSIVE,
    ("num_epochs", "max_train_steps"),
    _SOURCES,
    _VALIDATION,
    ("overwrite_output_dir", "resume_from_checkpoint"),
    ("model_config_name_or_path", "model_size"),
    ("model_config_name_or_path", "dropout"),
    ("pretrained_model_name_or_path", "model_size"),
    ("pretrained_model_name_or_path", "model_config_name_or_path"),
)
"""Options of which a given one takes the place of the others, where these are defaults."""

_GOES_WITH = {
    "train_data_dir": ("dataset_config_name",),
    "class_conditional": ("num_classes",),
    "streaming": ("num_epochs", "save_images_epochs", "save_model_epochs"),
    "ddpm_num_steps": ("ddpm_num_inference_steps",),
}
"""Options whose defaults of a preset or a file may not fit what was given for the first."""


def in_place_of(changes: dict[str, Any]) -> dict[str, Any]:
    """Let a changed option take the place of the one that it excludes."""
    more = {
        other: None
        for pair in _EXCLUSIVE
        for one, other in (pair, pair[::-1])
        if changes.get(one) is not None and other not in changes
    }
    return {**changes, **more}


def giving_way(defaults: TrainingConfig, given: Collection[str]) -> TrainingConfig:
    """Take back those defaults of a preset or a file that would overrule or refuse what is given.

    Arguments:
        defaults: What options are unless given.
        given: The names of those that are.
    """
    plain = type(defaults)()
    rivals = {n for group in _RIVALS if set(group) & set(given) for n in group}
    rivals |= {n for name in given for n in _GOES_WITH.get(name, ())}
    return defaults.replace(**{name: getattr(plain, name) for name in rivals - set(given)})


def check_typed(given: Collection[str]) -> None:
    """Refuse options that exclude one another, where both were given.

    Raises:
        ValueError: If there are any; names them.
    """
    fixed = [pair for pair in _RIVALS if pair[0].endswith("_name_or_path")]
    for one, other in (*_EXCLUSIVE, *fixed):
        if one in given and other in given:
            raise ValueError(f"give either {one} or {other}, got both")


def derived_options(given: TrainingConfig, resolved: TrainingConfig) -> tuple[str, ...]:
    """List the options that ``resolve`` settled, as nobody gave them."""
    names = type(given).__dataclass_fields__
    return tuple(
        name
        for name in names
        if getattr(given, name) in {None, "auto"}
        and getattr(resolved, name) != getattr(given, name)
    )


def without_leftovers(values: dict[str, Any]) -> dict[str, Any]:
    """Drop what files of earlier versions hold beside the option that was in its place."""
    free = {one for one, other in _EXCLUSIVE if values.get(other) is not None}
    if values.get("streaming"):
        free |= {"num_epochs", *(one for one, _ in _EXCLUSIVE)}
    return {name: None if name in free else value for name, value in values.items()}


def _has_model(config: TrainingConfig) -> bool:
    """Tell whether a pretrained model answers options that nobody gave."""
    return config.pretrained_model_name_or_path is not None


_NEEDS: dict[str, tuple[str, Any]] = {
    "snr_gamma": ("loss_weighting min_snr", lambda c: c.loss_weighting == "min_snr"),
    "p2_gamma": ("loss_weighting p2", lambda c: c.loss_weighting == "p2"),
    "p2_k": ("loss_weighting p2", lambda c: c.loss_weighting == "p2"),
    "vlb_weight": ("loss hybrid", lambda c: c.loss == "hybrid" or _has_model(c)),
    "label_dropout": ("class_conditional", lambda c: c.class_conditional or _has_model(c)),
    "muon_momentum": ("optimizer muon", lambda c: c.optimizer in {"auto", "muon"}),
    "ema_decay": ("use_ema", lambda c: c.use_ema),
    "ema_inv_gamma": ("use_ema", lambda c: c.use_ema),
    "ema_power": ("use_ema", lambda c: c.use_ema),
    "post_hoc_sigma_rels": ("post_hoc_steps", lambda c: c.post_hoc_steps > 0),
    "shuffle_buffer": ("streaming", lambda c: c.streaming),
    "logging_dir": ("logger", lambda c: c.logger != "none"),
    "validate_bound_images": ("validate_bound_steps", lambda c: c.validate_bound_steps > 0),
    "validation_steps": (
        "validation_data_dir, validation_split or validation_size",
        lambda c: any(getattr(c, n) for n in _VALIDATION),
    ),
    "hub_strategy": ("push_to_hub", lambda c: c.push_to_hub),
    "hub_private": ("push_to_hub", lambda c: c.push_to_hub),
    "hub_timeout": ("push_to_hub", lambda c: c.push_to_hub),
}
"""Options that do nothing alone, what they need, and whether a config has that."""


def idle_options(config: TrainingConfig, given: Iterable[str]) -> list[str]:
    """Say which of the given options change nothing, and what they need."""
    return [
        f"{name} has no effect without {_NEEDS[name][0]}"
        for name in given
        if name in _NEEDS and not _NEEDS[name][1](config)
    ]
