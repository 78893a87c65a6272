"""Saving weights over weights in another layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import diffusers
import pytest

from ddpm_pipeline import DDPMPipeline, DDPMScheduler

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusers import UNet2DModel

SHARDED: dict[str, Any] = {"max_shard_size": "20KB"}


@pytest.mark.parametrize("variant", [{}, {"variant": "fp16"}])
@pytest.mark.parametrize("layouts", [({}, SHARDED), (SHARDED, {}), (SHARDED, SHARDED)])
def test_the_new_weights_are_all_there_is(
    tiny_unet: Callable[..., UNet2DModel],
    tmp_path: Path,
    layouts: tuple[dict[str, Any], dict[str, Any]],
    variant: dict[str, str],
) -> None:
    new = DDPMPipeline(tiny_unet(seed=2), DDPMScheduler())
    new.save_pretrained(tmp_path / "alone", **layouts[1], **variant)
    old = DDPMPipeline(tiny_unet(seed=1, block_out_channels=(8, 24)), DDPMScheduler())
    old.save_pretrained(tmp_path / "over", **layouts[0], **variant)
    new.save_pretrained(tmp_path / "over", **layouts[1], **variant)
    alone, over = (
        {p.name: p.read_bytes() for p in (tmp_path / name / "unet").iterdir()}
        for name in ("alone", "over")
    )
    assert over == alone
    stock = diffusers.DDPMPipeline.from_pretrained(tmp_path / "over", **variant).unet.state_dict()
    expected = new.unet.state_dict()
    assert all(stock[name].equal(expected[name]) for name in expected)


def test_weights_of_another_variant_stay(
    tiny_unet: Callable[..., UNet2DModel], tmp_path: Path
) -> None:
    pipe = DDPMPipeline(tiny_unet(), DDPMScheduler())
    pipe.save_pretrained(tmp_path, variant="fp16")
    pipe.save_pretrained(tmp_path, **SHARDED)
    assert (tmp_path / "unet/diffusion_pytorch_model.fp16.safetensors").is_file()
    pipe.save_pretrained(tmp_path)
    names = sorted(path.name for path in (tmp_path / "unet").iterdir())
    assert names == [
        "config.json",
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.safetensors",
    ]
