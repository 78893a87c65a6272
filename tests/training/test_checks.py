"""What options may be, alone and together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ddpm_pipeline.training.config import TrainingConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 0}, "resolution must be an integer of at least 1, got 0"),
        ({"resolution": True}, "resolution must be an integer of at least 1, got True"),
        ({"train_batch_size": 1.5}, "train_batch_size must be an integer"),
        ({"max_train_steps": 0}, "max_train_steps must be an integer of at least 1"),
        ({"ddpm_num_steps": 10**7}, "ddpm_num_steps must be an integer from 1 to 100000, got"),
        (
            {"num_classes": 2**40, "class_conditional": True},
            "num_classes must be an integer from 1 to 999999, got",
        ),
        ({"ddpm_reference_side": 0}, "ddpm_reference_side must be at least 1, got 0"),
        (
            {"ddpm_reference_side": 65536, "resolution": 8},
            "ddpm_reference_side must be from .* to 148.88 for images of 8×8 .*got 65536",
        ),
        ({"ddpm_reference_side": True}, "ddpm_reference_side must be at least 1, got True"),
        ({"ddpm_reference_side": math.inf}, "ddpm_reference_side must be finite, got inf"),
        ({"ddpm_reference_side": math.nan}, "ddpm_reference_side must be .*got nan"),
        ({"ddpm_reference_side": "32"}, "ddpm_reference_side must be .*got '32'"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"ema_decay": (0.9, 0.9)}, "ema_decay must be one or several different"),
        ({"ema_decay": 0.9}, "ema_decay must be one or several different"),
        ({"ema_decay": None}, "ema_decay must be one or several different"),
        ({"learning_rate": math.inf}, "learning_rate must be finite, got inf"),
        ({"validation_size": math.inf}, "validation_size must be finite, got inf"),
        ({"learning_rate": "1e-3"}, "learning_rate must be above 0, got '1e-3'"),
        ({"validation_size": 1.5}, "validation_size must be a fraction below 1 or a whole"),
        ({"lr_scheduler": "exp"}, "lr_scheduler must be one of linear, cosine.*'exp'"),
        ({"mixed_precision": "fp8"}, "mixed_precision must be one of auto, no, fp16, bf16"),
        ({"compile": "yes"}, "compile must be one of True, False"),
        ({"use_ema": "no"}, "use_ema must be one of True, False"),
        ({"channels": 0}, "channels must be an integer of at least 1"),
        ({"train_data_dir": "a", "dataset_name": "b"}, "got both"),
        (
            {"augment": ("flip",), "resolution": (8, 16)},
            r"square images, got resolution=\(8, 16\)",
        ),
        ({"validation_size": 5, "validation_split": "test"}, "got several"),
        ({"dataset_config_name": "x"}, "needs dataset_name"),
        ({"num_classes": 3}, "num_classes=3 needs class_conditional"),
        (
            {"save_images_epochs": 1, "save_images_steps": 5},
            "give either save_images_epochs or save_images_steps, got both",
        ),
        (
            {"ddpm_num_steps": 10, "ddpm_num_inference_steps": 25},
            "ddpm_num_inference_steps must be at most ddpm_num_steps=10",
        ),
        ({"num_threads": 0}, "num_threads must be an integer of at least 1"),
        (
            {"streaming": True, "max_train_steps": 1, "num_epochs": 3},
            "num_epochs has no meaning for streaming, where no epochs are known; give max_train",
        ),
        *(
            ({"logging_dir": name}, "logging_dir must be the name of a folder of its own inside")
            for name in ("../logs", "/logs", "..", ".", "./", "", "a/b", "logs/", "unet")
        ),
        ({"streaming": True}, "streaming needs max_train_steps"),
        (
            {"streaming": True, "max_train_steps": 1, "validation_size": 5},
            "validation_size cannot be taken from a stream",
        ),
        (
            {"streaming": True, "max_train_steps": 1, "value_range": (0.0, 1.0)},
            "value_range has no meaning for streaming",
        ),
        ({"fsdp": True, "compile": True}, "compile does not work with fsdp"),
        ({"fsdp": True, "channels_last": True}, "channels_last does not work with fsdp"),
        (
            {"overwrite_output_dir": True, "resume_from_checkpoint": "x"},
            "either overwrite_output_dir or resume_from_checkpoint",
        ),
        (
            {"prediction_type": "epsilon", "rescale_betas_zero_snr": True},
            "'epsilon' is impossible with rescale_betas_zero_snr",
        ),
    ],
)
def test_what_is_not_allowed_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variance_type": "learned_range"}, "must be trained with loss vlb or hybrid"),
        ({"loss": "hybrid"}, "needs variance_type learned or learned_range, got 'fixed_small'"),
        ({"loss": "elbo"}, "loss must be one of simple, vlb, hybrid, got 'elbo'"),
        ({"loss": "vlb", "loss_weighting": "snr"}, "loss_weighting must be uniform"),
        ({"validate_bound_steps": 5}, "validate_bound_steps needs held-out images"),
        ({"vlb_weight": 0.0}, "vlb_weight must be above 0, got 0.0"),
    ],
)
def test_impossible_objectives_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(train_data_dir="images", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"push_to_hub": True}, "push_to_hub needs hub_model_id, as USER/NAME"),
        ({"hub_model_id": "digits"}, "hub_model_id must have the form USER/NAME, got 'digits'"),
        ({"hub_model_id": "a/b/c"}, "hub_model_id must have the form USER/NAME"),
        ({"hub_strategy": "always"}, "hub_strategy must be one of end, every_save, checkpoint"),
        ({"hub_timeout": 0}, "hub_timeout must be above 0"),
        (
            {"hub_strategy": "checkpoint", "checkpointing_steps": 0},
            "hub_strategy 'checkpoint' needs checkpointing_steps",
        ),
        ({"resume_from_checkpoint": "hub"}, "resume_from_checkpoint='hub' needs hub_model_id"),
        ({"resume_from_checkpoint": "hub:digits"}, "must have the form USER/NAME, got 'digits'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**options)


def test_an_integer_may_be_one_of_numpy() -> None:
    config = TrainingConfig(resolution=np.int64(32))
    assert config.to_dict() == TrainingConfig(resolution=32).to_dict()
    assert type(config.to_dict()["resolution"]) is int


@pytest.mark.parametrize(
    ("options", "answers"),
    [
        ({"preview_guidance_scale": 2.0}, {"class_conditional": False}),
        (
            {"preview_guidance_scale": 2.0, "preview_guidance_interval": (0, 1500)},
            {"class_conditional": True, "ddpm_num_steps": 1000},
        ),
        ({"depth": "exact", "outside_range": "clip"}, {"value_range": None}),
    ],
)
def test_what_the_model_may_answer_is_no_conflict_before_it_does(
    options: dict[str, Any], answers: dict[str, Any]
) -> None:
    options = {"train_data_dir": "images", **options}
    config = TrainingConfig(pretrained_model_name_or_path="model", **options)
    with pytest.raises(ValueError, match=r"preview_guidance|outside_range"):
        config.replace(**answers)
    with pytest.raises(ValueError, match=r"preview_guidance|outside_range"):
        TrainingConfig(**options)
