"""Attention outside autocast, and the allocator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ddpm_pipeline.cpu_training import Float32Attention, keep_freed_memory, use_float32_attention

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel


def test_attention_of_narrow_heads_is_computed_in_float32(
    tiny_unet: Callable[..., UNet2DModel], monkeypatch: object
) -> None:
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


def test_without_autocast_nothing_changes(tiny_unet: Callable[..., UNet2DModel]) -> None:
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 500])
    unet = tiny_unet()
    expected = unet(x, t).sample
    use_float32_attention(unet)
    assert any(isinstance(getattr(m, "processor", None), Float32Attention) for m in unet.modules())
    assert torch.equal(unet(x, t).sample, expected)


def test_wide_heads_keep_their_attention(tiny_unet: Callable[..., UNet2DModel]) -> None:
    unet = tiny_unet(block_out_channels=(8, 64), attention_head_dim=64, norm_num_groups=8)
    use_float32_attention(unet)
    assert not any(
        isinstance(getattr(m, "processor", None), Float32Attention) for m in unet.modules()
    )


def test_the_allocator_can_be_told_anywhere() -> None:
    keep_freed_memory()
    assert torch.zeros(10**6).sum() == 0
