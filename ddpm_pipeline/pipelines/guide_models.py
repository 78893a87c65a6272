"""What callers pass as guidance_model: a pipeline, a network, or where a model is saved."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import torch
from diffusers import SchedulerMixin
from torch import nn

from ddpm_pipeline.common import weights_hash
from ddpm_pipeline.networks import FastForward, dtype_of
from ddpm_pipeline.pipelines.calls import GuidanceModel
from ddpm_pipeline.pipelines.fitting import check_network
from ddpm_pipeline.pipelines.guides import Guide

__all__ = ["config_hash", "described_guidance", "open_guide"]


def open_guide(
    model: GuidanceModel,
    own: nn.Module,
    forward: FastForward,
    device: torch.device,
    load: Callable[[str], Any],
) -> Guide | None:
    """Make a guide of what was passed.

    Arguments:
        model: A pipeline, a network trained for the same scheduler, or a saved model; None gives
            None.
        own: The network that is guided, whose precision a saved model is loaded in.
        forward: How that is called, which a network alone and a saved model are called like.
        device: Where that runs, and a saved model is loaded to.
        load: Loads a saved model.
    Raises:
        TypeError: If it is none of these.
        OSError, ValueError: If it cannot be loaded.
    """
    if model is None:
        return None
    if isinstance(model, str | os.PathLike):
        loaded = load(os.fspath(model))
        loaded.unet.to(device, dtype_of(own, torch.float32)).eval()
        return Guide(loaded.unet, FastForward(loaded.unet, forward.dtype), loaded.scheduler)
    if hasattr(model, "unet") and hasattr(model, "scheduler"):
        called = getattr(model, "_fast", None) or FastForward(model.unet)
        return Guide(model.unet, called, model.scheduler)
    check_network(model, "guidance_model")
    return Guide(model, FastForward(model, forward.dtype))


def described_guidance(guide: Any, interval: Sequence[int] | None) -> dict[str, Any]:  # noqa: ANN401
    """Describe what guides beside the null class, and where, as far as anything does.

    Arguments:
        guide: The pipeline of guidance_model, or None.
        interval: The guidance_interval.
    """
    found: dict[str, Any] = {}
    if guide is not None:
        found["guidance_model"] = weights_hash(guide.unet)
        found["guidance_model_config"] = config_hash(guide.scheduler)
    if interval is not None:
        found["guidance_interval"] = list(interval)
    return found


def config_hash(scheduler: SchedulerMixin) -> str:
    """Hash a scheduler's config without what it is called and where it was."""
    config = json.loads(scheduler.to_json_string())
    config = {k: v for k, v in config.items() if k not in ("_name_or_path", "_class_name")}
    return sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
