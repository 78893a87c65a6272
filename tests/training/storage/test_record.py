"""What is written down of a run: its kind of machine, its options, its classes, and no names."""

from __future__ import annotations

import json
import platform
import socket
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from helpers.training_runs import tiny_config

from ddpm_pipeline import __version__
from ddpm_pipeline.networks import ModelFacts
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.resolving import resolve
from ddpm_pipeline.training.storage.record import training_record


def record(config: TrainingConfig, facts: ModelFacts | None = None) -> dict[str, Any]:
    return training_record(
        config,
        Accelerator(cpu=True),
        steps=12,
        seconds=1.23456,
        num_images=40,
        facts=facts or ModelFacts(),
    )


def resolved(folder: Path, **options: Any) -> TrainingConfig:
    config = tiny_config(folder, **options)
    return resolve(config, length=40, world_size=1, device=torch.device("cpu"))


def test_a_record_says_how_long_on_what_and_with_which_versions(tmp_path: Path) -> None:
    found = record(resolved(tmp_path))
    options = found.pop("options")
    assert found == {
        "steps": 12,
        "seconds": 1.235,
        "num_images": 40,
        "num_processes": 1,
        "device": f"CPU ({platform.machine()})",
        "versions": {
            "python": platform.python_version(),
            "ddpm_pipeline": __version__,
            "torch": torch.__version__,
            "diffusers": version("diffusers"),
        },
        "num_threads": torch.get_num_threads(),
    }
    assert socket.gethostname() not in json.dumps(found)
    assert options["train_batch_size"] == 4


def test_its_options_are_a_config_of_the_same_model(tmp_path: Path) -> None:
    config = resolved(tmp_path, learning_rate=0.01, prediction_type="sample")
    options = json.loads(json.dumps(record(config)["options"]))
    again = TrainingConfig(**options)
    for name in ("learning_rate", "prediction_type", "resolution", "max_train_steps"):
        assert getattr(again, name) == getattr(config, name)
    # What leaves the weights alone does not belong there.
    assert not {"output_dir", "cache_dir", "logging_steps", "checkpointing_steps"} & set(options)
    assert options["train_data_dir"] == "images.npy"  # no path of this machine


@pytest.mark.parametrize(
    "given",
    [{}, {"compile": True}, {"channels_last": True, "deterministic": True}, {"compile": False}],
)
def test_what_a_device_settles_is_shown_where_somebody_chose_otherwise(
    given: dict[str, bool], tmp_path: Path
) -> None:
    names = ("compile", "channels_last", "deterministic")
    options = record(resolved(tmp_path, **given))["options"]
    shown = {name: options[name] for name in names if name in options}
    assert shown == {name: value for name, value in given.items() if value}  # a CPU's are all off
    config = tiny_config(tmp_path, **given)
    alike = resolve(TrainingConfig(**options), length=40, world_size=1, device=torch.device("cpu"))
    first = resolve(config, length=40, world_size=1, device=torch.device("cpu"))
    for name in names:
        assert getattr(alike, name) == getattr(first, name)


@pytest.mark.parametrize(
    ("facts", "classes"),
    [
        (ModelFacts(), {}),
        (ModelFacts(class_counts=(3, 4)), {"class_counts": [3, 4]}),
        (
            ModelFacts(class_names=("cat", "dog"), class_counts=(3, 0)),
            {"class_names": ["cat", "dog"], "class_counts": [3, 0]},
        ),
    ],
)
def test_classes_are_as_far_as_they_are_known(
    facts: ModelFacts, classes: dict[str, Any], tmp_path: Path
) -> None:
    found = record(resolved(tmp_path), facts)
    assert {k: v for k, v in found.items() if k.startswith("class")} == classes
