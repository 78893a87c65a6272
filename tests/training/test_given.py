"""What was given wins over every default: ours, a preset's and a file's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm_pipeline.cli.train import parse_arguments
from ddpm_pipeline.training.config import PRESETS, TrainingConfig
from ddpm_pipeline.training.given import derived_options, giving_way, idle_options, in_place_of
from ddpm_pipeline.training.resolving import resolve

CPU = torch.device("cpu")


def resolved(config: TrainingConfig, length: int | None = 640) -> TrainingConfig:
    return resolve(config, length=length, world_size=1, device=CPU)


def typed(*words: str, length: int | None = 640) -> TrainingConfig:
    return resolved(parse_arguments(words).training, length)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """What a run of 3 epochs, 30 updates, left behind."""
    given = TrainingConfig(train_data_dir="photos", validation_size=0.1, num_epochs=3)
    config = resolved(given)
    config.save_json(tmp_path / "c.json", derived=derived_options(given, config))
    return str(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--max_train_steps", "5000"], {"max_train_steps": 5000}),
        (["--max-train-steps=5000"], {"max_train_steps": 5000}),
        (["--num_epochs", "3"], {"max_train_steps": 30}),
        (["--num_epochs", "3", "--max_train_steps", "7"], {"max_train_steps": 7}),
        (["--num_epochs", "3", "--max_train_steps", "70"], {"max_train_steps": 30}),
        ([], {"max_train_steps": 1000}),
        (["--preset", "ddpm", "--num_epochs", "2"], {"max_train_steps": 10}),
        (["--preset", "ddpm"], {"max_train_steps": 800_000, "lr_warmup_steps": 5000}),
        (["--preset", "ddpm", "--max_train_steps", "9"], {"lr_warmup_steps": 5000}),
        (["--preset", "ddpm", "--save_images_epochs", "2"], {"save_images_steps": 10}),
        (["--preset", "ddpm"], {"save_images_steps": 10_000}),
        (["--save_images_epochs", "2"], {"save_images_steps": 20}),
        (["--save_model_steps", "7"], {"save_model_steps": 7, "save_images_steps": 100}),
        (["--ddpm_num_steps", "10"], {"ddpm_num_inference_steps": 10}),
        (["--ddpm_num_steps", "500"], {"ddpm_num_inference_steps": 25}),
        (["--preset", "ddpm", "--ddpm-num-steps=50"], {"ddpm_num_inference_steps": 50}),
        (["--lr_warmup_steps", "500", "--max_train_steps", "9"], {"lr_warmup_steps": 500}),
        (["--preset", "ddpm", "--optimizer", "muon"], {"learning_rate": 2e-4}),
        (["--preset", "ddpm", "--dropout", "0.3"], {"dropout": 0.3}),
    ],
)
def test_what_is_typed_wins(words: list[str], expected: dict[str, Any]) -> None:
    config = typed(*words)
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"max_train_steps": 30, "num_epochs": 3, "train_data_dir": "photos"}),
        (["--max_train_steps", "5000"], {"max_train_steps": 5000, "num_epochs": None}),
        (["--num_epochs", "50"], {"max_train_steps": 500}),
        (["--train_batch_size", "32"], {"max_train_steps": 60, "validation_steps": 20}),
        (["--save_images_epochs", "2"], {"save_images_steps": 20}),
        (["--dataset_name", "mnist"], {"dataset_name": "mnist", "train_data_dir": None}),
        (["--validation_split", "test"], {"validation_split": "test", "validation_size": 0.0}),
        (["--optimizer", "muon"], {"learning_rate": 2e-3, "lr_warmup_steps": 15}),
        (["--optimizer", "adamw"], {"learning_rate": 1e-3, "lr_warmup_steps": 15}),
        (["--prediction_type", "epsilon"], {"rescale_betas_zero_snr": False}),
        (["--ddpm_num_steps", "10"], {"ddpm_num_inference_steps": 10}),
    ],
)
def test_what_is_typed_wins_over_a_file(
    file: str, words: list[str], expected: dict[str, Any]
) -> None:
    config = typed("--config", file, *words)
    assert {name: getattr(config, name) for name in expected} == expected


def test_a_file_of_an_earlier_version_opens_and_gives_way(tmp_path: Path) -> None:
    """It holds 100 epochs and the steps that they were cut to, with both ways of saving."""
    old = resolved(TrainingConfig(train_data_dir="photos", max_train_steps=150)).to_dict()
    old |= {"num_epochs": 100, "save_images_epochs": 10, "save_model_epochs": 10}
    for name in ("num_threads", "background", "max_pixels"):
        del old[name]
    TrainingConfig.from_dict(old)
    stream = {**old, "streaming": True, "train_data_dir": "shards"}
    assert TrainingConfig.from_dict(stream).num_epochs is None
    import json

    (tmp_path / "old.json").write_text(json.dumps(old))
    config = typed("--config", str(tmp_path / "old.json"), "--max_train_steps", "5000")
    assert config.max_train_steps == 5000
    config = typed("--config", str(tmp_path / "old.json"), "--save_model_epochs", "1")
    assert config.save_model_steps == 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--save_images_epochs 1 --save_images_steps 5", "give either save_images_epochs or"),
        ("--save_model_epochs 1 --save_model_steps 5", "give either save_model_epochs or"),
        ("--model_config_name_or_path u.json --model_size base", "give either model_config_name"),
        ("--model_config_name_or_path u.json --dropout 0.1", "give either model_config_name"),
        ("--streaming --num_epochs 3 --max_train_steps 9", "num_epochs has no meaning for"),
        ("--streaming --save_model_epochs 3 --max_train_steps 9", "save_model_epochs has no"),
        ("--streaming --validation_size 9 --max_train_steps 9", "validation_size cannot be"),
        ("--overwrite_output_dir --resume_from_checkpoint a", "give either overwrite_output_dir"),
    ],
)
def test_contradictions_are_refused(words: str, message: str) -> None:
    with pytest.raises((ValueError, SystemExit)) as caught:
        parse_arguments(words.split())
    assert isinstance(caught.value, SystemExit) or message in str(caught.value)


def test_replacing_an_option_takes_the_place_of_its_rival() -> None:
    config = TrainingConfig(save_images_steps=5)
    assert config.replace(save_images_epochs=2).save_images_steps is None
    assert config.replace(save_images_epochs=2).replace(save_images_steps=0).save_images_steps == 0
    assert config.replace(seed=1).save_images_steps == 5
    both = TrainingConfig(num_epochs=2, max_train_steps=9).replace(max_train_steps=10)
    assert both.num_epochs == 2


def test_resolving_twice_changes_nothing() -> None:
    for config in (TrainingConfig(), PRESETS["ddpm"], TrainingConfig(num_epochs=2)):
        assert resolved(resolved(config)) == resolved(config)


def test_options_that_do_nothing_are_named() -> None:
    config = TrainingConfig(snr_gamma=4.0, label_dropout=0.2, validation_size=5)
    assert idle_options(config, ["snr_gamma", "label_dropout", "seed", "validation_steps"]) == [
        "snr_gamma has no effect without loss_weighting min_snr",
        "label_dropout has no effect without class_conditional",
    ]


def test_both_options_of_a_pair_stay_where_both_were_given() -> None:
    both = {"save_images_steps": 100, "save_images_epochs": 5}
    assert in_place_of(both) == both
    with pytest.raises(ValueError, match="give either save_images_epochs or save_images_steps"):
        TrainingConfig(train_data_dir="x").replace(**both)


@pytest.mark.parametrize(
    ("given", "defaults"),
    [
        ("ddpm_num_steps", {"ddpm_num_inference_steps": 500}),
        ("class_conditional", {"class_conditional": True, "num_classes": 10}),
        ("streaming", {"num_epochs": 3, "save_images_epochs": 2}),
    ],
)
def test_defaults_of_another_choice_are_free_again(given: str, defaults: dict[str, Any]) -> None:
    plain, config = TrainingConfig(), TrainingConfig(**defaults)
    changed = giving_way(config, {given})
    for name in defaults.keys() - {given}:
        assert getattr(changed, name) == getattr(plain, name) != getattr(config, name)
    assert giving_way(config, {"seed"}) == config


def test_what_nobody_settled_is_not_derived() -> None:
    given = TrainingConfig()
    assert derived_options(given, given) == ()
    assert derived_options(given, given.replace(max_train_steps=7)) == ("max_train_steps",)
