"""The options of training: checked when made, saved and read, free of local paths."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from ddpm_pipeline.training.config import PRESETS, TrainingConfig
from ddpm_pipeline.training.optimizers import learning_rates
from ddpm_pipeline.training.resolving import resolve
from ddpm_pipeline.training.storage.identity import differing_fields

STOCK_FLAGS = [
    "dataset_name",
    "dataset_config_name",
    "model_config_name_or_path",
    "train_data_dir",
    "output_dir",
    "overwrite_output_dir",
    "cache_dir",
    "resolution",
    "center_crop",
    "random_flip",
    "train_batch_size",
    "eval_batch_size",
    "num_epochs",
    "save_images_epochs",
    "save_model_epochs",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler",
    "lr_warmup_steps",
    "adam_beta1",
    "adam_beta2",
    "adam_weight_decay",
    "adam_epsilon",
    "use_ema",
    "ema_inv_gamma",
    "ema_power",
    "logger",
    "logging_dir",
    "mixed_precision",
    "prediction_type",
    "ddpm_num_steps",
    "ddpm_num_inference_steps",
    "ddpm_beta_schedule",
    "checkpointing_steps",
    "checkpoints_total_limit",
    "resume_from_checkpoint",
]


def test_the_stock_example_is_known_by_its_names() -> None:
    assert set(STOCK_FLAGS) <= set(TrainingConfig.__dataclass_fields__)


@pytest.mark.parametrize("preset", PRESETS)
def test_json_gives_back_the_config(tmp_path: Path, preset: str) -> None:
    config = PRESETS[preset].replace(ema_decay=(0.9, 0.99), value_range=(0.0, 1.0), seed=7)
    config.save_json(tmp_path / "config.json")
    assert TrainingConfig.from_json(tmp_path / "config.json") == config


def test_only_names_of_paths_are_saved(tmp_path: Path) -> None:
    config = TrainingConfig(
        train_data_dir=str(tmp_path / "photos"),
        output_dir=str(tmp_path / "model"),
        cache_dir=str(tmp_path / "cache"),
        resume_from_checkpoint=str(tmp_path / "old" / "step-0000001"),
        model_config_name_or_path=str(tmp_path / "unet.json"),
    )
    values = config.to_dict()
    assert values["train_data_dir"] == "photos"
    assert values["model_config_name_or_path"] == "unet.json"
    assert str(tmp_path) not in json.dumps(values)
    assert TrainingConfig(dataset_name="ylecun/mnist").to_dict()["dataset_name"] == "ylecun/mnist"


def test_the_preset_is_the_recipe_of_2020() -> None:
    config = PRESETS["ddpm"]
    assert config.prediction_type == "epsilon"
    assert config.ddpm_beta_schedule == "linear"
    assert config.ddpm_num_steps == 1000
    assert config.loss == "simple"
    assert config.loss_weighting == "uniform"
    assert config.timestep_sampler == "uniform"
    assert config.rescale_betas_zero_snr is False
    assert (config.learning_rate, config.adam_weight_decay) == (2e-4, 0)
    assert (config.adam_beta1, config.adam_beta2) == (0.9, 0.999)
    assert (config.ema_decay, config.ema_power) == ((0.9999,), 0)
    assert (config.train_batch_size, config.max_train_steps) == (128, 800_000)
    assert (config.max_grad_norm, config.lr_warmup_steps, config.dropout) == (1, 5000, 0.1)
    assert config.random_flip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 0}, "resolution must be an integer of at least 1, got 0"),
        ({"resolution": True}, "resolution must be an integer of at least 1, got True"),
        ({"train_batch_size": 1.5}, "train_batch_size must be an integer"),
        ({"max_train_steps": 0}, "max_train_steps must be an integer of at least 1"),
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
        ({"channels": 2}, "channels must be 1, 3 or 4"),
        ({"train_data_dir": "a", "dataset_name": "b"}, "got both"),
        ({"validation_size": 5, "validation_split": "test"}, "got several"),
        ({"dataset_config_name": "x"}, "needs dataset_name"),
        ({"num_classes": 3}, "num_classes=3 needs class_conditional"),
        ({"num_epochs": None}, "got neither"),
        ({"ddpm_num_steps": 10}, "ddpm_num_inference_steps must be at most ddpm_num_steps=10"),
        ({"logging_dir": "../logs"}, "logging_dir must be a folder inside output_dir"),
        ({"logging_dir": "/logs"}, "logging_dir must be a folder inside output_dir"),
        ({"streaming": True}, "streaming needs max_train_steps"),
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


def test_an_unknown_option_in_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"learning_rat": 1}')
    with pytest.raises(ValueError, match=r"unknown training options .*learning_rat"):
        TrainingConfig.from_json(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ValueError, match=r"b\.json' is not JSON"):
        TrainingConfig.from_json(tmp_path / "b.json")


def test_a_continuation_may_differ_in_what_leaves_the_weights_alone() -> None:
    old = TrainingConfig(max_train_steps=10)
    free = {"output_dir": "b", "logger": "wandb", "checkpointing_steps": 7, "cache_dir": "c"}
    assert differing_fields(old, old.replace(**free), step=0) == {}
    assert differing_fields(old, old.replace(seed=1, dropout=0.5), step=0) == {
        "seed": (0, 1),
        "dropout": (0.0, 0.5),
    }
    cosine = old.replace(lr_scheduler="cosine")
    longer = cosine.replace(max_train_steps=20)
    assert "max_train_steps" in differing_fields(cosine, longer, step=0)
    for name in ("constant", "constant_with_warmup"):
        constant = old.replace(lr_scheduler=name)
        assert differing_fields(constant, constant.replace(max_train_steps=20), step=9) == {}


@pytest.mark.parametrize("step", [0, 1, 7, 8, 9, 10])
@pytest.mark.parametrize("steps", [9, 10, 11, 40])
def test_a_run_with_a_cooldown_may_change_its_length_until_the_rates_would_differ(
    step: int, steps: int
) -> None:
    old = TrainingConfig(max_train_steps=10, learning_rate=1.0, lr_warmup_steps=0)
    new = old.replace(max_train_steps=steps)
    before, after = (
        [learning_rates(config, config.max_train_steps)(i) for i in range(min(step, steps))]
        for config in (old, new)
    )
    assert (differing_fields(old, new, step=step) == {}) == (before == after)


def test_a_longer_run_with_a_longer_warm_up_is_no_continuation() -> None:
    cpu = torch.device("cpu")
    short, longer = (
        resolve(
            TrainingConfig(
                max_train_steps=steps, lr_scheduler="constant_with_warmup", lr_warmup_steps=7
            ),
            length=None,
            world_size=1,
            device=cpu,
        )
        for steps in (10, 20)
    )
    assert differing_fields(short, longer, step=0) == {"lr_warmup_steps": (5, 7)}
