"""A model as diffusers 0.1 saved it."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import torch
from safetensors.torch import save_file

__all__ = ["save_old_layout"]

OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def save_old_layout(unet: diffusers.UNet2DModel, directory: Path, suffix: str) -> None:
    """A repository as of diffusers 0.1: flat, old attention names, old scheduler keys."""
    directory.mkdir(parents=True)
    unet.save_config(directory)
    config = json.loads((directory / "config.json").read_text())
    config["_diffusers_version"] = "0.1.1"
    (directory / "config.json").write_text(json.dumps(config))
    weights = {}
    for name, tensor in unet.state_dict().items():
        old_name = name
        for new, old in OLD_NAMES.items():
            old_name = old_name.replace(f".{new}.", f".{old}.")
        weights[old_name] = tensor.clone()
    assert any(".query." in name for name in weights)
    if suffix == "safetensors":
        save_file(weights, directory / "diffusion_pytorch_model.safetensors")
    else:
        torch.save(weights, directory / "diffusion_pytorch_model.bin")
    (directory / "scheduler_config.json").write_text(
        json.dumps(
            {
                "_class_name": "DDPMScheduler",
                "_diffusers_version": "0.1.1",
                "beta_end": 0.02,
                "beta_schedule": "linear",
                "beta_start": 0.0001,
                "clip_predicted_image": True,
                "clip_sample": True,
                "timesteps": 1000,
                "trained_betas": None,
                "variance_type": "fixed_large",
            }
        )
    )
    (directory / "model_index.json").write_text(
        json.dumps(
            {
                "_class_name": "DDPMPipeline",
                "_diffusers_version": "0.1.1",
                "scheduler": ["diffusers", "DDPMScheduler"],
                "unet": ["diffusers", "UNet2DModel"],
            }
        )
    )
