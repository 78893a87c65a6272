"""Fine-tuning with every option at once, killed at random moments: not a bit is different."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from diffusers import UNet2DModel
from helpers.features import MEANS_OF_QUARTERS
from helpers.killed_runs import kill_often, start
from helpers.training_runs import TINY_UNET, run_forked, tiny_config

from ddpm_pipeline import DDPMPipeline, DDPMScheduler, train

if TYPE_CHECKING:
    from ddpm_pipeline.training.config import TrainingConfig

_TIMES = {"images_per_second", "seconds"}
_NOT_COMPARED = {"manifest.json"}


def config_of(folder: Path, **options: object) -> TrainingConfig:
    """From a model of before to one with learned variances, of the best weights of the run."""
    folder.mkdir(parents=True)
    (folder / "means.py").write_text(MEANS_OF_QUARTERS)
    torch.manual_seed(0)
    unet = UNet2DModel(**TINY_UNET)
    torch.nn.init.normal_(unet.conv_out.weight, std=0.1)
    DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=20)).save_pretrained(folder / "base")
    defaults = {
        "model_config_name_or_path": None,
        "pretrained_model_name_or_path": str(folder / "base"),
        "variance_type": "learned_range",
        "train_only": "decoder",
        "layer_decay": 0.8,
        "augment": ("flip", "translate", "rotate", "brightness"),
        "augment_probability": 0.5,
        "random_flip": False,
        "post_hoc_steps": 3,
        "ema_decay": (0.5, 0.99),
        "validation_size": 0.4,
        "validation_steps": 4,
        "validate_bound_steps": 6,
        "validate_bound_images": 4,
        "validate_fid_steps": 4,
        "validate_fid_features": str(folder / "means.py"),
        "validate_fid_images": 8,
        "best_by": "distance",
        "keep": "best",
        "early_stop": 3,
        "preview_guidance_model": str(folder / "base"),
        "preview_guidance_scale": 2.0,
        "preview_guidance_interval": (2, 15),
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "checkpointing_steps": 3,
        "logging_steps": 5,
    }
    config = tiny_config(folder, **defaults | options)
    return config.replace(ddpm_num_steps=20)


def everything(run: Path) -> dict[str, object]:
    """All that a run leaves, but for its times, of which manifests hold hashes."""
    files = [p for p in run.rglob("*") if p.is_file() and p.name not in _NOT_COMPARED]
    return {str(p.relative_to(run)): contents(p) for p in sorted(files)}


def contents(path: Path) -> object:
    if path.name == "metrics.jsonl":
        return [without_times(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".json":
        return without_times(json.loads(path.read_text()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def without_times(value: object) -> object:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in _TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def differing(first: dict[str, object], second: dict[str, object]) -> list[str]:
    return sorted(k for k in first.keys() | second.keys() if first.get(k) != second.get(k))


def assert_same_to_the_bit(run: Path, expected: dict[str, object]) -> None:
    found = everything(run)
    names = " ".join(expected)
    for part in (
        "post-hoc/",
        "best.safetensors",
        "optimizer",
        "average-0.5",
        "metrics",
        "samples/",
    ):
        assert part in names
    assert differing(found, expected) == []


def test_two_kills_at_random_moments_change_no_bit(tmp_path: Path) -> None:
    whole, config = (config_of(tmp_path / n, max_train_steps=9) for n in ("whole", "killed"))
    began = time.monotonic()
    train(whole)
    length, run, dice = time.monotonic() - began, Path(config.output_dir), random.Random(0)
    codes = []
    for _ in range(2):
        end = time.monotonic() + dice.uniform(0.1, 0.6) * length
        codes += run_forked(config, lambda end=end: time.monotonic() > end)
    assert codes == [-signal.SIGKILL] * 2
    assert run_forked(config) == [0]
    assert_same_to_the_bit(run, everything(Path(whole.output_dir)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4))
def test_twenty_kills_at_random_moments_change_no_bit(tmp_path: Path, seed: int) -> None:
    """Five kills of real processes for each seed; the run stops early."""
    whole, config = (config_of(tmp_path / n, max_train_steps=90) for n in ("whole", "killed"))
    assert start(whole, 1).wait() == 0
    expected = everything(Path(whole.output_dir))
    assert len(expected["metrics.jsonl"]) > 20
    check = lambda run: assert_same_to_the_bit(run, expected)  # noqa: E731
    length = json.loads((Path(whole.output_dir) / "training_record.json").read_text())["seconds"]
    while_writing = kill_often(config, 1, check, kills=5, within=length / 2, seed=seed)
    sys.stdout.write(f"5 kills, {while_writing} in a checkpoint's writing\n")
