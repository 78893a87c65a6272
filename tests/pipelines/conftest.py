"""A saved model to sample from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ddpm_pipeline import DDPMPipeline, DDPMScheduler

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusers import UNet2DModel


@pytest.fixture
def model(tiny_unet: Callable[..., UNet2DModel], tmp_path: Path) -> str:
    path = tmp_path / "model"
    DDPMPipeline(tiny_unet(), DDPMScheduler(100)).save_pretrained(path)
    return str(path)
