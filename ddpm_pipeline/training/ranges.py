"""What one training option may be by itself: the smallest integers, and ranges of numbers.

INTEGERS["seed"]                            0, the least
LARGEST["ddpm_num_steps"]                   100,000, the most
RANGES["dropout"].holds(0.1)                True; RANGES["dropout"].words says what is allowed
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ddpm_pipeline.common import is_integer
from ddpm_pipeline.data import STACK_PATTERN, is_stack_pattern
from ddpm_pipeline.diffusion import MAX_TIMESTEPS
from ddpm_pipeline.networks import MAX_CLASSES
from ddpm_pipeline.training.few_images import AUGMENTATION_NAMES
from ddpm_pipeline.training.lengths import LONGEST

__all__ = ["INTEGERS", "LARGEST", "RANGES", "Range"]


class Range(NamedTuple):
    """What values an option may have: a test of them, and words for what passes it."""

    holds: Callable[[Any], bool]
    words: str


INTEGERS: dict[str, int] = {
    **dict.fromkeys(
        (
            "train_batch_size",
            "gradient_accumulation_steps",
            "num_epochs",
            "ddpm_num_steps",
            "logging_steps",
            "validate_bound_images",
            "validate_fid_images",
            "eval_batch_size",
            "ddpm_num_inference_steps",
            "num_classes",
            "checkpoints_total_limit",
            "max_pixels",
            "num_threads",
        ),
        1,
    ),
    **dict.fromkeys(
        (
            "max_train_steps",
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
            "validate_fid_steps",
            "early_stop",
            "post_hoc_steps",
        ),
        0,
    ),
}
"""Options that are integers, and the smallest that each may be."""

LARGEST: dict[str, int] = {
    "ddpm_num_steps": MAX_TIMESTEPS,
    "num_classes": MAX_CLASSES,
}
"""The largest of those for which tables or networks of any size would be built."""

_SHARE = Range(lambda v: 0 <= v < 1, "at least 0 and below 1")
_POSITIVE = Range(lambda v: v > 0, "above 0")
_NOT_NEGATIVE = Range(lambda v: v >= 0, "at least 0")

RANGES: dict[str, Range] = {
    "channels": Range(lambda v: is_integer(v) and v >= 1, "an integer of at least 1"),
    "validation_size": Range(
        lambda v: 0 <= v < 1 or (v >= 1 and v == int(v)),
        "a fraction below 1 or a whole number of images",
    ),
    "augment": Range(
        lambda v: isinstance(v, tuple) and len(v) == len(set(v)) and {*v} <= {*AUGMENTATION_NAMES},
        f"different names of {', '.join(AUGMENTATION_NAMES)}",
    ),
    "augment_probability": Range(lambda v: 0 < v <= 1, "above 0 and at most 1"),
    "dropout": _SHARE,
    "label_dropout": _SHARE,
    "condition_dropout": _SHARE,
    "condition_vector": Range(
        lambda v: 0 < len(v) == len(set(v)) and all(isinstance(name, str) for name in v),
        "one or several different columns",
    ),
    "stack_pattern": Range(is_stack_pattern, STACK_PATTERN),
    "ddpm_reference_side": Range(lambda v: v >= 1, "at least 1"),
    "vlb_weight": _POSITIVE,
    "snr_gamma": _POSITIVE,
    "p2_gamma": _NOT_NEGATIVE,
    "p2_k": _POSITIVE,
    "muon_momentum": _SHARE,
    "layer_decay": Range(lambda v: 0 < v <= 1, "above 0 and at most 1"),
    "learning_rate": _POSITIVE,
    "adam_beta1": _SHARE,
    "adam_beta2": _SHARE,
    "adam_weight_decay": _NOT_NEGATIVE,
    "adam_epsilon": _POSITIVE,
    "max_grad_norm": _NOT_NEGATIVE,
    "ema_decay": Range(
        lambda v: 0 < len(v) == len(set(v)) and all(0 <= d < 1 for d in v),
        "one or several different numbers, at least 0 and below 1",
    ),
    "ema_inv_gamma": _POSITIVE,
    "preview_guidance_scale": Range(lambda v: v == v, "a number"),  # noqa: PLR0124 (NaN is none)
    "preview_guidance_interval": Range(
        lambda v: len(v) == 2 and all(map(is_integer, v)) and 0 <= v[0] <= v[1],
        "two timesteps from 0 on, the lower first",
    ),
    "post_hoc_sigma_rels": Range(
        lambda v: 0 < len(v) == len(set(v)) and all(0 < s <= LONGEST for s in v),
        f"one or several different numbers, above 0 and at most {LONGEST:.4f}",
    ),
    "ema_power": _NOT_NEGATIVE,
    "hub_timeout": _POSITIVE,
}
