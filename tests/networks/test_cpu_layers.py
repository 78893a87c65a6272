"""Attention outside autocast, and the allocator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ddpm_pipeline.networks import cpu_layers
from ddpm_pipeline.networks.cpu_layers import (
    Float32Attention,
    keep_freed_memory,
    use_float32_attention,
    use_matrix_products,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel


def test_attention_of_narrow_heads_is_computed_in_float32(
    tiny_unet: Callable[..., UNet2DModel], monkeypatch: object
) -> None:
    monkeypatch.setattr(cpu_layers, "_FEW_PLACES", 0)
    unet = tiny_unet()
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 500])
    attention = torch.nn.functional.scaled_dot_product_attention
    seen = []

    def noting(query: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        seen.append(query.dtype)
        return attention(query, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noting)
    with torch.autocast("cpu", torch.bfloat16):
        unet(x, t)
        assert set(seen) == {torch.bfloat16}
        seen.clear()
        use_float32_attention(unet)
        output = unet(x, t).sample
    assert set(seen) == {torch.float32}
    exact = tiny_unet()(x, t).sample
    torch.testing.assert_close(output.float(), exact, rtol=0.05, atol=0.05)


def test_attention_of_few_places_is_the_same_without_a_fused_kernel(
    tiny_unet: Callable[..., UNet2DModel], monkeypatch: object
) -> None:
    unet = tiny_unet()
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 500])
    expected = unet(x, t).sample
    use_float32_attention(unet)
    monkeypatch.delattr(torch.nn.functional, "scaled_dot_product_attention")
    torch.testing.assert_close(unet(x, t).sample, expected, rtol=1e-5, atol=1e-5)


def test_without_autocast_attention_is_stock_s(
    tiny_unet: Callable[..., UNet2DModel], monkeypatch: object
) -> None:
    monkeypatch.setattr(cpu_layers, "_FEW_PLACES", 0)
    unet = tiny_unet()
    attention = unet.mid_block.attentions[0]
    x = torch.randn(2, attention.query_dim, 4, 6)
    expected = attention(x)
    use_float32_attention(unet)
    assert isinstance(attention.processor, Float32Attention)
    assert torch.equal(attention(x), expected)


@pytest.mark.parametrize("memory_order", [torch.contiguous_format, torch.channels_last])
def test_attention_of_bfloat16_keeps_the_memory_order_of_its_input(
    tiny_unet: Callable[..., UNet2DModel], memory_order: torch.memory_format
) -> None:
    unet = tiny_unet()
    use_float32_attention(unet)
    attention = unet.mid_block.attentions[0]
    x = torch.randn(2, attention.query_dim, 4, 6, dtype=torch.bfloat16)
    x = x.to(memory_format=memory_order)
    assert attention(x).is_contiguous(memory_format=memory_order)


def test_wide_heads_keep_their_attention(tiny_unet: Callable[..., UNet2DModel]) -> None:
    unet = tiny_unet(block_out_channels=(8, 64), attention_head_dim=64, norm_num_groups=8)
    use_float32_attention(unet)
    assert not any(
        isinstance(getattr(m, "processor", None), Float32Attention) for m in unet.modules()
    )


@pytest.mark.parametrize("side", [(5, 7), (2, 2)])
@pytest.mark.parametrize("autocast", [False, True])
def test_products_are_the_convolutions_of_one_pixel(
    side: tuple[int, int], *, autocast: bool
) -> None:
    own, stock = torch.nn.Conv2d(6, 4, 1), torch.nn.Conv2d(6, 4, 1)
    own.load_state_dict(stock.state_dict())
    use_matrix_products(own)
    x = torch.randn(3, 6, *side)
    tolerance = {"rtol": 0.05, "atol": 0.05} if autocast else {"rtol": 1e-5, "atol": 1e-6}
    outputs = []
    for convolution in (own, stock):
        image = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = convolution(image)
        output.float().square().sum().backward()
        outputs.append((output, image.grad, convolution.weight.grad, convolution.bias.grad))
    for ours, theirs in zip(*outputs, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, **tolerance)


def test_only_convolutions_of_one_pixel_become_products(
    tiny_unet: Callable[..., UNet2DModel], monkeypatch: object
) -> None:
    unet = tiny_unet()
    x, t = torch.randn(2, 1, 32, 32), torch.tensor([3, 500])
    expected, kernels = unet(x, t).sample, []
    convolve = torch.nn.Conv2d.forward

    def noting(module: torch.nn.Conv2d, image: torch.Tensor) -> torch.Tensor:
        kernels.append(module.kernel_size)
        return convolve(module, image)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", noting)
    unet(x, t)
    assert (1, 1) in kernels
    kernels.clear()
    use_matrix_products(unet)
    torch.testing.assert_close(unet(x, t).sample, expected, rtol=1e-4, atol=1e-5)
    assert set(kernels) == {(3, 3)}


def test_the_allocator_can_be_told_anywhere() -> None:
    keep_freed_memory()
    assert torch.zeros(10**6).sum() == 0
