"""Untrained models of classes and pictures, with the images that they are measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.unets import make_tiny_unet

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.networks import Conditioning, ModelFacts, set_facts

CLASSES = 3
NUMBERS = """
import torch

def feature_extractor():
    return torch.nn.Flatten()
"""


def write_conditioned(path: Path, count: int, seed: int = 0) -> None:
    """Write images 4 × 4 with smaller ones, whose grey says the class."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    low = (80 * labels[:, None, None] + generator.integers(0, 40, (count, 2, 2))).astype(np.uint8)
    images = low.repeat(2, 1).repeat(2, 2)
    np.savez(path, images=images, low=low, labels=labels)


def record_told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Give a list of the class of each image that is drawn from now on, and of its picture."""
    told, draw = [], DDPMPipeline.__call__

    def recording(self: DDPMPipeline, **options: Any) -> Any:
        greys = options["condition"].picture[:, 0, 0, 0].tolist()
        labels = torch.as_tensor(options["class_labels"]).tolist()
        told.extend((label, grey // 80) for label, grey in zip(labels, greys, strict=True))
        return draw(self, **options)

    monkeypatch.setattr(DDPMPipeline, "__call__", recording)
    return told


def save_conditioned(folder: Path, *, classes: bool = False) -> Path:
    """Save a model of pictures 2 × 2, and of classes if asked for; give its folder."""
    told = {"num_class_embeds": CLASSES + 1} if classes else {}
    unet = make_tiny_unet(channels=2, out_channels=1, sample_size=4, **told)
    facts = ModelFacts(
        class_counts=(1,) * CLASSES if classes else None,
        trains_null_class=True if classes else None,
        reading={"condition_on": "low"},
        conditioning=Conditioning(channels=1, sides=(2, 2), trains_null=True).to_dict(),
    )
    set_facts(unet, facts)
    DDPMPipeline(unet, DDPMScheduler(20)).save_pretrained(folder / "model")
    (folder / "pixels.py").write_text(NUMBERS)
    return folder / "model"
