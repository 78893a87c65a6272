from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.optimizing import computes_in_bfloat16

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from diffusers import UNet2DModel


@pytest.fixture
def pipe(tiny_unet: Callable[..., UNet2DModel]) -> DDPMPipeline:
    made = DDPMPipeline(tiny_unet(), DDPMScheduler(timestep_spacing="trailing"))
    made.set_progress_bar_config(disable=True)
    return made


def draw(pipe: DDPMPipeline, count: int = 4, **options: object) -> np.ndarray:
    generators = [torch.Generator().manual_seed(i) for i in range(count)]
    options = {"num_inference_steps": 5, "output_type": "np", **options}
    return pipe(count, generators, **options).images


def test_images_in_bfloat16_are_those_in_float32_to_rounding(pipe: DDPMPipeline) -> None:
    plain = draw(pipe)
    fast = draw(pipe.optimize("bfloat16"))
    levels = 255 * abs(fast - plain)
    assert 0 < levels.mean() < 1
    assert (draw(pipe.optimize("float32")) == plain).all()


def test_auto_is_bfloat16_where_the_processor_computes_in_it(pipe: DDPMPipeline) -> None:
    wanted = "bfloat16" if computes_in_bfloat16(torch.device("cpu")) else "float32"
    named = draw(pipe.optimize(wanted))
    assert (draw(pipe.optimize()) == named).all()


def test_image_i_stays_the_same_in_any_batch(pipe: DDPMPipeline) -> None:
    pipe.optimize("bfloat16")
    assert (draw(pipe, 4)[:2] == draw(pipe, 2)).all()


def test_the_network_itself_stays_as_it_is_and_the_fast_one_follows_it(pipe: DDPMPipeline) -> None:
    side = pipe.unet.config.sample_size
    x = torch.randn(2, pipe.unet.config.in_channels, side, side)
    t = torch.tensor([3, 500])
    with torch.no_grad():
        before = pipe.unet(x, t).sample
        images = draw(pipe.optimize("bfloat16"))
        assert (pipe.unet(x, t).sample == before).all()
        pipe.unet.conv_in.weight.mul_(1.5)
        assert (draw(pipe) != images).any()
        pipe.unet.conv_in.weight.div_(1.5)
    assert (draw(pipe) == images).all()
    for module in pipe.unet.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    calm = draw(pipe.optimize("bfloat16"))
    pipe.unet.train()
    assert (draw(pipe) != calm).any()
    pipe.unet.eval()
    assert (draw(pipe) == calm).all()


def test_what_is_saved_is_what_was(pipe: DDPMPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "plain")
    pipe.optimize("bfloat16", channels_last=True)
    draw(pipe)
    pipe.save_pretrained(tmp_path / "fast")
    names = [path.relative_to(tmp_path / "plain") for path in (tmp_path / "plain").rglob("*.*")]
    assert len(names) >= 3
    for name in names:
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "fast" / name).read_bytes()


def test_channels_last_is_a_matter_of_memory_order(pipe: DDPMPipeline) -> None:
    plain = draw(pipe)
    order = draw(pipe.optimize("float32", channels_last=True))
    torch.testing.assert_close(order, plain, atol=1e-4, rtol=0)


def test_another_network_is_not_optimized(
    pipe: DDPMPipeline, tiny_unet: Callable[..., UNet2DModel]
) -> None:
    other = tiny_unet()
    wanted = draw(DDPMPipeline(other, pipe.scheduler))
    pipe.optimize("bfloat16").unet = other
    assert (draw(pipe) == wanted).all()


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("half", "precision must be one of auto, float32, bfloat16, float16, got 'half'"),
        ("float16", "precision 'float16' needs a GPU"),
    ],
)
def test_mistakes_are_named(pipe: DDPMPipeline, precision: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipe.optimize(precision)
