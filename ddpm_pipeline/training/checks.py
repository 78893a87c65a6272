"""What each training option may be, alone and together with the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import chain
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from ddpm_pipeline.diffusion import check_loss
from ddpm_pipeline.hub import check_repo_id, parse_hub_checkpoint

if TYPE_CHECKING:
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["check_options"]


def check_options(config: TrainingConfig) -> None:
    """ValueError for the first option that is not allowed, naming it, its value and what is."""
    for name, allowed in _choices(type(config)).items():
        value = getattr(config, name)
        if value not in allowed:
            raise ValueError(f"{name} must be one of {_words(allowed)}, got {value!r}")
    optional = _optional(type(config))
    for name, (is_allowed, allowed) in _RANGES.items():
        value = getattr(config, name)
        if isinstance(value, float) and math.isinf(value):
            raise ValueError(f"{name} must be finite, got {value!r}")
        if not ((value is None and name in optional) or _holds(is_allowed, value)):
            raise ValueError(f"{name} must be {allowed}, got {value!r}")
    check_loss(config.loss, config.variance_type, config.loss_weighting)
    if config.hub_model_id is not None:
        check_repo_id(config.hub_model_id, "hub_model_id")
    parse_hub_checkpoint(config.resume_from_checkpoint, config.hub_model_id)
    _check_together(config)


@cache
def _optional(config_type: type) -> set[str]:
    """The fields that may be None."""
    hints = get_type_hints(config_type)
    return {name for name, hint in hints.items() if type(None) in get_args(hint)}


def _holds(is_allowed: Callable[[Any], bool], value: object) -> bool:
    """Whether a value is allowed, which one of another type is not."""
    try:
        return not isinstance(value, bool) and is_allowed(value)
    except TypeError:
        return False


@cache
def _choices(config_type: type) -> dict[str, tuple[Any, ...]]:
    """The fields that take one of a few values, read from their annotations."""
    hints = get_type_hints(config_type)
    choices = {name: _allowed(hint) for name, hint in hints.items()}
    return {name: allowed for name, allowed in choices.items() if allowed}


def _allowed(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """All values of a type made of bool, None and Literal; () if it is made of more."""
    if hint is bool:
        return (True, False)
    if hint is type(None):
        return (None,)
    if get_origin(hint) is Literal:
        return get_args(hint)
    parts = (
        [_allowed(part) for part in get_args(hint)]
        if get_origin(hint) in {Union, UnionType}
        else []
    )
    return tuple(chain.from_iterable(parts)) if all(parts) else ()


def _positive_integer(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def _natural(value: object) -> bool:
    return isinstance(value, int) and value >= 0


_COUNTS = [
    "resolution",
    "train_batch_size",
    "gradient_accumulation_steps",
    "num_epochs",
    "max_train_steps",
    "ddpm_num_steps",
    "logging_steps",
    "validate_bound_images",
    "eval_batch_size",
    "ddpm_num_inference_steps",
    "num_classes",
    "checkpoints_total_limit",
]
_NATURALS = [
    "shuffle_buffer",
    "lr_warmup_steps",
    "seed",
    "save_images_epochs",
    "save_images_steps",
    "save_model_epochs",
    "save_model_steps",
    "checkpointing_steps",
    "validation_steps",
    "validate_bound_steps",
]
_RANGES: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(_COUNTS, (_positive_integer, "an integer of at least 1")),
    **dict.fromkeys(_NATURALS, (_natural, "an integer of at least 0")),
    **{
        name: (lambda v: 0 <= v < 1, "at least 0 and below 1")
        for name in ("dropout", "label_dropout", "adam_beta1", "adam_beta2", "muon_momentum")
    },
    **{
        name: (lambda v: v > 0, "above 0")
        for name in (
            "learning_rate",
            "adam_epsilon",
            "snr_gamma",
            "p2_k",
            "vlb_weight",
            "ema_inv_gamma",
            "hub_timeout",
        )
    },
    **{
        name: (lambda v: v >= 0, "at least 0")
        for name in ("adam_weight_decay", "max_grad_norm", "p2_gamma", "ema_power")
    },
    "validation_size": (
        lambda v: 0 <= v < 1 or (v >= 1 and v == int(v)),
        "a fraction below 1 or a whole number of images",
    ),
    "channels": (lambda v: v in {1, 3, 4}, "1, 3 or 4"),
    "ema_decay": (
        lambda v: 0 < len(v) == len(set(v)) and all(0 <= d < 1 for d in v),
        "one or several different numbers, at least 0 and below 1",
    ),
}


def _words(values: tuple[Any, ...]) -> str:
    return ", ".join(map(str, values))


def _check_together(config: TrainingConfig) -> None:
    """ValueError for values that are allowed each but not together."""
    c = config
    conflicts = [
        (
            c.rescale_betas_zero_snr is True and c.prediction_type == "epsilon",
            (
                "prediction_type 'epsilon' is impossible with rescale_betas_zero_snr, where x_T "
                "holds nothing of the data; use v_prediction or sample"
            ),
        ),
        (
            c.train_data_dir is not None and c.dataset_name is not None,
            "give either train_data_dir or dataset_name, got both",
        ),
        (
            sum(map(bool, (c.validation_data_dir, c.validation_split, c.validation_size))) > 1,
            "give one of validation_data_dir, validation_split and validation_size, got several",
        ),
        (
            c.validate_bound_steps > 0
            and not (c.validation_data_dir or c.validation_split or c.validation_size),
            "validate_bound_steps needs held-out images: give one of the validation options",
        ),
        (
            c.dataset_config_name is not None and c.dataset_name is None,
            f"dataset_config_name={c.dataset_config_name!r} needs dataset_name",
        ),
        (
            c.streaming and c.max_train_steps is None,
            "streaming needs max_train_steps: the length of a stream is not known",
        ),
        (
            c.streaming and bool(c.validation_size),
            "validation_size cannot be taken from a stream; give validation_data_dir",
        ),
        (
            c.streaming and c.value_range is not None,
            "value_range has no meaning for streaming",
        ),
        (
            c.num_classes is not None and not c.class_conditional,
            f"num_classes={c.num_classes} needs class_conditional",
        ),
        (
            c.fsdp and c.compile,
            "compile does not work with fsdp; choose one of them",
        ),
        (
            c.fsdp and c.channels_last,
            "channels_last does not work with fsdp: shards are cut from plain memory order",
        ),
        (
            c.fsdp and c.optimizer == "muon",
            "optimizer 'muon' does not work with fsdp: it needs whole matrices; use adamw or auto",
        ),
        (
            c.overwrite_output_dir and c.resume_from_checkpoint not in {"latest", "none"},
            "give either overwrite_output_dir or resume_from_checkpoint, got both",
        ),
        (
            c.push_to_hub and c.hub_model_id is None,
            "push_to_hub needs hub_model_id, as USER/NAME",
        ),
        (
            c.hub_strategy == "checkpoint" and c.checkpointing_steps == 0,
            "hub_strategy 'checkpoint' needs checkpointing_steps above 0",
        ),
        (
            Path(c.logging_dir).is_absolute() or ".." in Path(c.logging_dir).parts,
            f"logging_dir must be a folder inside output_dir, got {c.logging_dir!r}",
        ),
        (
            c.num_epochs is None and c.max_train_steps is None,
            "give num_epochs or max_train_steps, got neither",
        ),
        (
            c.ddpm_num_inference_steps > c.ddpm_num_steps,
            (
                f"ddpm_num_inference_steps must be at most ddpm_num_steps={c.ddpm_num_steps}, "
                f"got {c.ddpm_num_inference_steps}"
            ),
        ),
    ]
    for is_wrong, message in conflicts:
        if is_wrong:
            raise ValueError(message)
