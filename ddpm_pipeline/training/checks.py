"""What each training option may be, alone and together with the others.

    check_options(config)       raises for the first option that is not allowed

The choices are read from the annotations of the config's fields, and ``ranges`` has the ranges.
What does not go together is a table below: a row says when it is wrong and what to tell of it.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import chain
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from ddpm_pipeline.common import check_choice, check_integer
from ddpm_pipeline.data import NO_STACKS
from ddpm_pipeline.diffusion import check_loss
from ddpm_pipeline.hub import check_license, check_repo_id, parse_hub_checkpoint
from ddpm_pipeline.training.conflicts import (
    CONDITIONS,
    FEW_IMAGES,
    PREVIEWS,
    Conflict,
    are_named,
    is_the_models,
    validation_sources,
)
from ddpm_pipeline.training.ranges import INTEGERS, LARGEST, RANGES, Range

if TYPE_CHECKING:
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["check_options"]


def check_options(config: TrainingConfig) -> None:
    """Refuse options that are not allowed.

    Raises:
        ValueError: If there are any; names the first of them, its value and what is allowed.
    """
    for name, allowed in _choices(type(config)).items():
        check_choice(name, getattr(config, name), allowed)
    optional = _optional(type(config))
    for name, least in INTEGERS.items():
        value = getattr(config, name)
        if not (value is None and name in optional):
            check_integer(name, value, least=least, most=LARGEST.get(name))
    for name, allowed in RANGES.items():
        value = getattr(config, name)
        if not (value is None and name in optional):
            _check_range(name, value, allowed)
    _check_loss(config)
    _check_shift(config)
    if config.hub_model_id is not None:
        check_repo_id(config.hub_model_id, "hub_model_id")
    if config.hub_license is not None:
        check_license(config.hub_license, "hub_license")
    parse_hub_checkpoint(config.resume_from_checkpoint, config.hub_model_id)
    for conflict in chain.from_iterable(_CONFLICTS.values()):
        if conflict.is_in(config):
            raise ValueError(conflict.message.format(config=config))


def _check_loss(config: TrainingConfig) -> None:
    """Refuse a loss that does not fit the variance, where both are known."""
    if not (is_the_models(config, "variance_type") or is_the_models(config, "loss")):
        check_loss(config.loss, config.variance_type, config.loss_weighting)


def _check_shift(config: TrainingConfig) -> None:
    """Refuse a side that shifts the noise schedule too far, where that schedule is known."""
    side = config.ddpm_reference_side
    known_by = ("resolution", "ddpm_num_steps", "ddpm_beta_schedule")
    if side is None or any(is_the_models(config, name) for name in known_by):
        return
    from ddpm_pipeline.diffusion import NoiseSchedule, check_reference_side  # torch, which is slow

    schedule = NoiseSchedule.named(config.ddpm_beta_schedule, config.ddpm_num_steps)
    check_reference_side(schedule, config.resolution, side, "ddpm_reference_side")


@cache
def _choices(config_type: type) -> dict[str, tuple[Any, ...]]:
    """Find the fields that take one of a few values, and these values."""
    hints = get_type_hints(config_type)
    choices = {name: _values_of(hint) for name, hint in hints.items()}
    return {name: allowed for name, allowed in choices.items() if allowed}


def _values_of(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """List the values of a type made of bool, None and Literal; () if it is made of more."""
    if hint is bool:
        return (True, False)
    if hint is type(None):
        return (None,)
    if get_origin(hint) is Literal:
        return get_args(hint)
    is_union = get_origin(hint) in {Union, UnionType}
    parts = [_values_of(part) for part in get_args(hint)] if is_union else []
    return tuple(chain.from_iterable(parts)) if all(parts) else ()


@cache
def _optional(config_type: type) -> set[str]:
    """Find the fields that may be None."""
    hints = get_type_hints(config_type)
    return {name for name, hint in hints.items() if type(None) in get_args(hint)}


def _check_range(name: str, value: object, allowed: Range) -> None:
    """Refuse a value outside its range, infinity, and what is of another type."""
    if isinstance(value, float) and math.isinf(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    try:
        is_allowed = not isinstance(value, bool) and allowed.holds(value)
    except TypeError:
        is_allowed = False
    if not is_allowed:
        raise ValueError(f"{name} must be {allowed.words}, got {value!r}")


# Several options together.


def _is_no_log_folder(config: TrainingConfig) -> bool:
    """Tell whether the logger's folder is anything but a folder of its own in output_dir."""
    name = config.logging_dir
    is_plain = Path(name).name == name and not any(c in name for c in "\\\0") and name != ".."
    return not name or not is_plain or name in _FOLDERS_OF_A_RUN


_FOLDERS_OF_A_RUN = {
    "unet",
    "scheduler",
    "samples",
    "checkpoints",
    "before-cooldown",
    "shorter-run",
    "post-hoc",
}


_NO_CHECKPOINT = {"latest", "none"}  # what resume_from_checkpoint may be that names none

_CONFLICTS: dict[str, list[Conflict]] = {
    "few images": FEW_IMAGES,
    "conditions": CONDITIONS,
    "data": [
        Conflict(
            lambda c: c.train_data_dir is not None and c.dataset_name is not None,
            "give either train_data_dir or dataset_name, got both",
        ),
        Conflict(
            lambda c: c.dataset_config_name is not None and c.dataset_name is None,
            "dataset_config_name={config.dataset_config_name!r} needs dataset_name",
        ),
        Conflict(
            lambda c: validation_sources(c) > 1,
            "give one of validation_data_dir, validation_split and validation_size, got several",
        ),
        Conflict(
            lambda c: (
                c.num_classes is not None
                and not c.class_conditional
                and not is_the_models(c, "class_conditional")
            ),
            "num_classes={config.num_classes} needs class_conditional",
        ),
    ],
    "streams": [
        Conflict(
            lambda c: c.streaming and c.max_train_steps is None,
            "streaming needs max_train_steps: the length of a stream is not known",
        ),
        Conflict(
            lambda c: c.streaming and bool(c.validation_size),
            "validation_size cannot be taken from a stream; give validation_data_dir",
        ),
        *(
            Conflict(
                lambda c, name=name: c.streaming and getattr(c, name) is not None,
                f"{name} has no meaning for streaming, where no epochs are known; give {steps}",
            )
            for name, steps in (
                ("num_epochs", "max_train_steps"),
                ("save_images_epochs", "save_images_steps"),
                ("save_model_epochs", "save_model_steps"),
            )
        ),
        Conflict(
            lambda c: c.streaming and c.depth == "exact",
            "depth 'exact' has no meaning for streaming, whose values are not measured beforehand",
        ),
        Conflict(
            lambda c: (
                c.outside_range == "clip"
                and (c.depth != "exact" or not (c.value_range or is_the_models(c, "value_range")))
            ),
            "outside_range 'clip' needs depth 'exact' and a value_range",
        ),
        Conflict(
            lambda c: c.streaming and c.value_range is not None,
            "value_range has no meaning for streaming",
        ),
        Conflict(
            lambda c: c.streaming and c.stack_pattern not in {None, NO_STACKS},
            "stack_pattern has no meaning for streaming, whose rows are images",
        ),
    ],
    "start": [
        Conflict(
            lambda c: (
                c.pretrained_model_name_or_path is not None
                and c.model_config_name_or_path is not None
            ),
            "give either pretrained_model_name_or_path or model_config_name_or_path, got both",
        ),
        Conflict(
            lambda c: c.pretrained_model_name_or_path is not None and "model_size" in c.given,
            "give either pretrained_model_name_or_path or model_size, got both",
        ),
        Conflict(
            lambda c: (
                c.pretrained_revision is not None and c.pretrained_model_name_or_path is None
            ),
            "pretrained_revision={config.pretrained_revision!r} needs "
            "pretrained_model_name_or_path",
        ),
    ],
    "updates": [
        Conflict(
            lambda c: c.max_train_steps == 0 and c.pretrained_model_name_or_path is None,
            "max_train_steps must be an integer of at least 1, got 0, which is allowed with "
            "pretrained_model_name_or_path: a fresh network would be saved as it was drawn",
        ),
        Conflict(
            lambda c: c.train_only != "all" and c.pretrained_model_name_or_path is None,
            "train_only={config.train_only!r} needs pretrained_model_name_or_path: what is not "
            "trained would stay as it was drawn",
        ),
    ],
    "objective": [
        Conflict(
            lambda c: (
                c.rescale_betas_zero_snr is True
                and c.prediction_type == "epsilon"
                and not is_the_models(c, "prediction_type")
            ),
            "prediction_type 'epsilon' is impossible with rescale_betas_zero_snr, where x_T "
            "holds nothing of the data; use v_prediction or sample",
        ),
    ],
    "saving": [
        Conflict(
            lambda c, what=what: (
                None not in {getattr(c, f"save_{what}_epochs"), getattr(c, f"save_{what}_steps")}
            ),
            f"give either save_{what}_epochs or save_{what}_steps, got both",
        )
        for what in ("images", "model")
    ],
    "sharding": [
        Conflict(
            lambda c: c.fsdp and c.compile,
            "compile does not work with fsdp; choose one of them",
        ),
        Conflict(
            lambda c: c.fsdp and c.channels_last,
            "channels_last does not work with fsdp: shards are cut from plain memory order",
        ),
        Conflict(
            lambda c: c.fsdp and c.optimizer == "muon",
            "optimizer 'muon' does not work with fsdp: it needs whole matrices; use adamw or auto",
        ),
    ],
    "graphs": [
        Conflict(
            lambda c: c.cuda_graph and (c.loss != "simple" or "importance" in c.timestep_sampler),
            "cuda_graph needs loss simple and a timestep_sampler without importance: others "
            "divide or weigh a batch by its timesteps; got loss {config.loss!r} and "
            "timestep_sampler {config.timestep_sampler!r}",
        ),
        Conflict(
            lambda c: c.cuda_graph and c.gradient_accumulation_steps > 1,
            "cuda_graph needs gradient_accumulation_steps=1, since a graph does not add gradients "
            "up, got {config.gradient_accumulation_steps}",
        ),
        Conflict(
            lambda c: (
                c.cuda_graph
                and (c.fsdp or c.gradient_checkpointing or c.mixed_precision == "fp16")
            ),
            "cuda_graph works neither with fsdp nor gradient_checkpointing nor fp16, got "
            "fsdp={config.fsdp}, gradient_checkpointing={config.gradient_checkpointing}, "
            "mixed_precision={config.mixed_precision!r}",
        ),
    ],
    "previews": PREVIEWS,
    "monitoring": [
        Conflict(
            lambda c: c.validate_bound_steps > 0 and are_named(c) and not validation_sources(c),
            "validate_bound_steps needs held-out images: give one of the validation options",
        ),
        Conflict(
            lambda c: (
                (c.ddpm_num_inference_steps or 0) > c.ddpm_num_steps
                and not is_the_models(c, "ddpm_num_steps")
            ),
            "ddpm_num_inference_steps must be at most ddpm_num_steps={config.ddpm_num_steps}, "
            "got {config.ddpm_num_inference_steps}",
        ),
        Conflict(
            _is_no_log_folder,
            "logging_dir must be the name of a folder of its own inside output_dir, without "
            "separators, got {config.logging_dir!r}",
        ),
    ],
    "storage": [
        Conflict(
            lambda c: c.overwrite_output_dir and c.resume_from_checkpoint not in _NO_CHECKPOINT,
            "give either overwrite_output_dir or resume_from_checkpoint, got both",
        ),
    ],
    "hub": [
        Conflict(
            lambda c: c.push_to_hub and c.hub_model_id is None,
            "push_to_hub needs hub_model_id, as USER/NAME",
        ),
        Conflict(
            lambda c: c.hub_strategy == "checkpoint" and c.checkpointing_steps == 0,
            "hub_strategy 'checkpoint' needs checkpointing_steps above 0",
        ),
    ],
}
