"""Small training runs of the command line that push to a Hub on loopback."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.training_runs import tiny_config

if TYPE_CHECKING:
    from helpers.hub_clients import Client, Outcome

REPO = "alice/blobs"
USER, PLACE = "zaphod", "heart-of-gold"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
METHODS = ("GET", "HEAD", "POST", "PUT")


def arguments(folder: Path, **options: Any) -> list[str]:
    """A tiny run on the command line, that pushes."""
    defaults = {"push_to_hub": True, "hub_model_id": REPO, "max_train_steps": 6}
    config = tiny_config(folder, **{**defaults, "hub_timeout": 30.0, **options})
    words = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value == field.default or value is None:
            continue
        flag = value is True and field.name != "rescale_betas_zero_snr"
        words += [f"--{field.name}"] if flag else [f"--{field.name}", str(value)]
    return words


def trained(client: Client, folder: Path, **options: Any) -> Outcome:
    return client.run("train", *arguments(folder, **options))


def fresh(name: str) -> str:
    """A repository of the test's own."""
    return f"alice/{name}"


def everywhere(mode: str, times: int = 10**6, **more: Any) -> list[dict[str, Any]]:
    return [
        {"mode": mode, "method": method, "path": "^/(?!_test)", "times": times, **more}
        for method in METHODS
    ]
