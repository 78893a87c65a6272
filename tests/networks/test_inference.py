"""Optimized pipelines draw the same images to rounding, and save what they saved before."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from helpers.device_counts import DeviceCounts

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.networks.cpu_layers import Float32Attention
from ddpm_pipeline.networks.inference import computes_in_bfloat16

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel

CPUINFO = Path("/proc/cpuinfo")


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


@pytest.mark.skipif(not CPUINFO.is_file(), reason="needs Linux")
def test_the_processor_is_asked_what_it_can(pipe: DDPMPipeline) -> None:
    flags = CPUINFO.read_text().split()
    assert computes_in_bfloat16(pipe.device) == ("avx512_bf16" in flags)


def test_weights_are_cast_once_for_all_steps_of_a_call(pipe: DDPMPipeline) -> None:
    pipe.optimize("bfloat16")
    weights = sum(p.ndim > 1 for p in pipe.unet.parameters())

    def casts(steps: int) -> int:
        with DeviceCounts("cpu") as counts:
            draw(pipe, num_inference_steps=steps)
        return counts.kernels["_to_copy"]

    each_step = casts(4) - casts(3)
    assert each_step == casts(5) - casts(4)
    assert casts(1) - each_step > weights / 2
    # With weights that are cast for every step, as between the steps of an iterator.
    generator = torch.Generator().manual_seed(0)
    *_, (_, last) = pipe.progressive(2, generator, 3, "np")
    assert np.array_equal(last, pipe(2, generator.manual_seed(0), 3, "np").images)
    assert not torch.is_autocast_enabled("cpu")


def test_weights_that_changed_between_calls_are_cast_again(pipe: DDPMPipeline) -> None:
    images = draw(pipe.optimize("bfloat16"))
    torch.nn.init.zeros_(pipe.unet.conv_out.weight)
    assert (draw(pipe) != images).any()


def test_image_i_stays_the_same_in_any_batch(pipe: DDPMPipeline) -> None:
    pipe.optimize("bfloat16")
    assert (draw(pipe, 4)[:2] == draw(pipe, 2)).all()


def test_the_network_has_other_layers_only_while_it_is_called(pipe: DDPMPipeline) -> None:
    attention = [m for m in pipe.unet.modules() if isinstance(m, Attention)]
    before = [m.processor for m in attention]
    pointwise = [
        m
        for m in pipe.unet.modules()
        if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (1, 1)
    ]
    seen = []

    def look(*_: object) -> None:
        processors = {type(m.processor) for m in attention}
        seen.append((processors, {"forward" in vars(m) for m in pointwise}))

    pipe.unet.conv_in.register_forward_hook(look)
    draw(pipe)
    assert all(state == ({AttnProcessor2_0}, {False}) for state in seen)
    seen.clear()
    draw(pipe.optimize("bfloat16"))
    assert all(state == ({Float32Attention}, {True}) for state in seen)
    assert seen
    assert [m.processor for m in attention] == before
    assert not any("forward" in vars(m) for m in pipe.unet.modules())


def test_processors_of_the_user_stay_in_use(pipe: DDPMPipeline) -> None:
    class Counting(AttnProcessor2_0):
        calls = 0

        def __call__(self, *args: object, **kwargs: object) -> torch.Tensor:
            Counting.calls += 1
            return super().__call__(*args, **kwargs)

    for module in pipe.unet.modules():
        if isinstance(module, Attention):
            module.set_processor(Counting())
    draw(pipe.optimize("bfloat16"))
    assert Counting.calls > 0


def test_a_copy_has_a_network_of_its_own(pipe: DDPMPipeline) -> None:
    images = draw(pipe.optimize("bfloat16"))
    for other in (copy.deepcopy(pipe), pickle.loads(pickle.dumps(pipe))):
        assert (draw(other) == images).all()
        torch.nn.init.zeros_(other.unet.conv_out.weight)
        assert (draw(other) != images).any()


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
