"""Layers that are faster on a CPU than diffusers' own, in training and in bfloat16 sampling.

    use_float32_attention(network); use_matrix_products(network)    for good, as training does
    with SwappedLayers.of(network).in_use(): ...                    for the length of a block
    keep_freed_memory()

tests/benchmarks/test_training_speed.py times all of it. Why each is faster:

- Attention in float32 where heads are narrow: torch's fused bfloat16 kernel takes seven times as
  long as its float32 one in the backward pass at 49 places and heads of 8 (torch 2.13, AMX).
- Its result, in bf16, in the memory order of its input: diffusers returns a transposed view, and
  what follows would mix both orders, with copies.
- Convolutions of one pixel as batched matrix products: oneDNN's take about twice as long, forward
  and backward, where planes are kept one by one and have more places than there are channels.
- Attention of few places without a fused kernel, which takes a third longer; not in bfloat16,
  where the scores in float32 would add a twentieth to the memory of training.
- Freed memory stays with the process: by default glibc returns every large tensor to the system
  when it is freed, and the system clears it anew for the next one.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn

__all__ = [
    "Float32Attention",
    "SwappedLayers",
    "keep_freed_memory",
    "use_float32_attention",
    "use_matrix_products",
]


_WIDE_HEAD, _FEW_PLACES = 64, 64
_OF_DIFFUSERS = (AttnProcessor, AttnProcessor2_0)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
_LARGEST_INT = 2**31 - 1


class Float32Attention:
    """Diffusers' attention, outside autocast: plain for few places in float32, else fused."""

    def __init__(self) -> None:
        self._plain, self._fused = AttnProcessor(), AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attend as diffusers does; in bf16, in the memory order of ``hidden_states``."""
        places = hidden_states[0].numel() // attn.query_dim
        plain = places <= _FEW_PLACES and hidden_states.dtype == torch.float32
        attend = self._plain if plain else self._fused
        with torch.autocast(hidden_states.device.type, enabled=False):
            output = attend(
                attn, hidden_states.float(), encoder_hidden_states, attention_mask, temb
            )
        if hidden_states.dtype == torch.float32:  # copies would cost memory and gain no time
            return output
        return torch.empty_like(hidden_states).copy_(output)


def use_float32_attention(network: nn.Module) -> None:
    """Compute the attention of narrow heads in float32, whatever autocast says."""
    for module in _narrow_attention(network):
        module.set_processor(Float32Attention())


def use_matrix_products(network: nn.Module) -> None:
    """Compute convolutions of one pixel, such as residual shortcuts, as matrix products."""
    for module in _pointwise_convolutions(network):
        module.forward = partial(_pointwise, module)


_SWAPPING = Lock()  # of all, for layers that are swapped must be copied and pickled


@dataclass(frozen=True, eq=False)
class SwappedLayers:
    """The layers of a network that can be swapped, for the length of a block, and back.

    Layers that somebody else replaced in the meantime are left alone. Of blocks in several threads
    the first swaps them in and the last swaps them out.
    """

    attention: tuple[Attention, ...]
    convolutions: tuple[nn.Conv2d, ...]
    _blocks: list[ExitStack] = field(default_factory=list)

    @classmethod
    def of(cls, network: nn.Module) -> SwappedLayers:
        """Find the layers of a network, which stays as it is."""
        return cls(_narrow_attention(network), _pointwise_convolutions(network))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Have the faster layers in place, and diffusers' again when nobody needs them."""
        with _SWAPPING:
            if not self._blocks:
                self._blocks.append(ExitStack())
                self._blocks[0].enter_context(self._swapped())
            self._blocks.append(self._blocks[0])
        try:
            yield
        finally:
            with _SWAPPING:
                self._blocks.pop()
                if len(self._blocks) == 1:
                    self._blocks.pop().close()

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        """Swap the faster layers in, and diffusers' back in at the end."""
        narrow = [m for m in self.attention if type(m.processor) in _OF_DIFFUSERS]
        attention = [(module, module.processor) for module in narrow]
        convolutions = [m for m in self.convolutions if "forward" not in vars(m)]
        try:
            for module, _ in attention:
                module.processor = Float32Attention()
            for module in convolutions:
                module.forward = partial(_pointwise, module)
            yield
        finally:
            for module, processor in attention:
                module.processor = processor
            for module in convolutions:
                vars(module).pop("forward", None)


def _narrow_attention(network: nn.Module) -> tuple[Attention, ...]:
    found = [module for module in network.modules() if isinstance(module, Attention)]
    return tuple(module for module in found if module.inner_dim // module.heads < _WIDE_HEAD)


def _pointwise_convolutions(network: nn.Module) -> tuple[nn.Conv2d, ...]:
    found = [module for module in network.modules() if type(module) is nn.Conv2d]
    return tuple(module for module in found if _is_pointwise(module))


def _is_pointwise(module: nn.Conv2d) -> bool:
    plain = module.kernel_size == module.stride == (1, 1) and module.padding == (0, 0)
    return plain and module.groups == 1 and module.bias is not None


def _pointwise(module: nn.Conv2d, x: Tensor) -> Tensor:
    if x.ndim != 4 or x.shape[2:].numel() < module.in_channels:
        return nn.Conv2d.forward(module, x)
    weight = module.weight.flatten(1).expand(len(x), -1, -1)
    product = torch.baddbmm(module.bias[:, None], weight, x.flatten(2))
    return product.unflatten(2, x.shape[2:])


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next tensor; do nothing without glibc."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, _LARGEST_INT)
        mallopt(_TOP_PAD, 2**26)
