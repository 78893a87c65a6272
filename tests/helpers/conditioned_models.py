"""Untrained models of classes and pictures, with the images that they are measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers.unets import make_tiny_unet

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.networks import Conditioning, ModelFacts, set_facts

CLASSES = 3
NUMBERS = """
import torch

def feature_extractor():
    return torch.nn.Flatten()
"""


def write_conditioned(path: Path, count: int, seed: int = 0) -> np.ndarray:
    """Write images 4 × 4 with smaller ones, whose grey says the class; give the smaller ones."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    low = (80 * labels[:, None, None] + generator.integers(0, 40, (count, 2, 2))).astype(np.uint8)
    images = low.repeat(2, 1).repeat(2, 2)
    np.savez(path, images=images, low=low, labels=labels)
    return low


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
