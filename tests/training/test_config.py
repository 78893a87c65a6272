"""The options of training: saved and read, free of local paths."""

from __future__ import annotations

import ast
import dataclasses
import json
import pickle
from pathlib import Path

import pytest

import ddpm_pipeline
from ddpm_pipeline.cli.train import parse_arguments
from ddpm_pipeline.training.config import PRESETS, TrainingConfig

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


def test_stock_parses_flags_that_it_never_reads() -> None:
    package = Path(ddpm_pipeline.__file__).parent
    read = set()
    for path in package.rglob("*.py"):
        if path != package / "training" / "config.py":
            tree = ast.parse(path.read_text())
            read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    fields = set(TrainingConfig.__dataclass_fields__)
    assert fields <= read


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


def test_an_unknown_option_in_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"learning_rat": 1}')
    with pytest.raises(ValueError, match=r"unknown training options .*learning_rat"):
        TrainingConfig.from_json(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ValueError, match=r"b\.json' is not JSON"):
        TrainingConfig.from_json(tmp_path / "b.json")


def test_a_config_knows_what_was_given() -> None:
    config = TrainingConfig(seed=1, prediction_type="v_prediction")  # the second is the default
    assert config.given == {"seed", "prediction_type"}
    assert config.replace(resolution=8).given == {"seed", "prediction_type", "resolution"}
    assert dataclasses.replace(config, resolution=8).given == {"seed", "resolution"}
    assert pickle.loads(pickle.dumps(config)).given == config.given
    assert TrainingConfig.from_dict(config.to_dict()).given == {"seed"}
    assert all(not preset.given for preset in PRESETS.values())
    typed = parse_arguments(["--seed", "0", "--preset", "ddpm", "--train_data_dir", "photos"])
    assert typed.training.given == {"seed", "train_data_dir"}
