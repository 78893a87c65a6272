"""Learned variances and losses for the bound, vlb and hybrid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.training_runs import TINY_UNET, blobs, tiny_config

from ddpm_pipeline import DDPMPipeline, variational_bound
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.run import train

LEARNED = {"variance_type": "learned_range", "ddpm_num_steps": 50}


def learned_config(folder: Path, **options: object) -> TrainingConfig:
    config = tiny_config(folder, **{**LEARNED, "validation_size": 8, **options})
    path = folder / "learned.json"
    path.write_text(json.dumps({**TINY_UNET, "out_channels": 2}))
    return config.replace(model_config_name_or_path=str(path))


@pytest.mark.parametrize("loss", ["vlb", "hybrid"])
def test_stock_has_no_learned_variance_and_no_bound(tmp_path: Path, loss: str) -> None:
    config = learned_config(
        tmp_path,
        loss=loss,
        timestep_sampler="low_discrepancy_importance",
        max_train_steps=6,
        validate_bound_steps=3,
        validate_bound_images=4,
    )
    result = train(config)
    pipe = DDPMPipeline.from_pretrained(result.output_dir)
    assert pipe.scheduler.variance_type == "learned_range"
    assert pipe.unet.config.out_channels == 2
    lines = [json.loads(s) for s in (result.output_dir / "metrics.jsonl").read_text().splitlines()]
    bounds = [line for line in lines if "bound_bits_per_dim" in line]
    assert [line["step"] for line in bounds] == [3, 6]
    for line in bounds:
        parts = (line[f"bound_{name}"] for name in ("prior", "transitions", "decoder"))
        assert sum(parts) == pytest.approx(line["bound_bits_per_dim"], rel=1e-9)
    images = torch.from_numpy(blobs(4)).unsqueeze(1).float() / 127.5 - 1
    report = variational_bound(pipe.unet, pipe.scheduler, images)
    # Nothing is learned in six updates: it is the size that is checked, not the quality.
    assert 1 < report.bits_per_dim < 3 * bounds[-1]["bound_bits_per_dim"]


def test_training_for_the_bound_lowers_it(tmp_path: Path) -> None:
    measured = []
    for steps in (2, 60):
        config = learned_config(
            tmp_path / str(steps),
            loss="vlb",
            max_train_steps=steps,
            lr_warmup_steps=1,
            learning_rate=5e-3,
            use_ema=False,
            validate_bound_steps=steps,
        )
        lines = (train(config).output_dir / "metrics.jsonl").read_text().splitlines()
        measured.append(json.loads(lines[-1])["bound_bits_per_dim"])
    assert measured[1] < measured[0] - 0.5
