"""``pipe.optimize()``: faster forward passes whose weights stay what they are.

    pipe.optimize()                        # the fastest that was measured for the device
    pipe.optimize(precision="float32")     # as it was

The network runs under autocast, from float32 weights: what is saved, hashed and measured is the
same before and after. On a CPU with bfloat16 instructions 25 steps of a trained model change by
less than a grey level on average; tests/benchmarks/test_sampling_speed.py measures how much.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal

import torch

from ddpm_pipeline.compiling import CompiledNetwork
from ddpm_pipeline.cpu_training import (
    keep_freed_memory,
    use_float32_attention,
    use_matrix_products,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers.models.unets.unet_2d import UNet2DOutput
    from torch import Tensor, nn

__all__ = [
    "PRECISIONS",
    "FastForward",
    "InferencePrecision",
    "computes_in_bfloat16",
    "fast_forward",
]

InferencePrecision = Literal["auto", "float32", "bfloat16", "float16"]
PRECISIONS: tuple[InferencePrecision, ...] = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, eq=False)
class FastForward:
    """How a network is called.

    Arguments:
        network: The module, or its compiled self.
        dtype: Of autocast; None for the weights' own.
    """

    network: Callable[..., UNet2DOutput]
    dtype: torch.dtype | None = None

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """The precision of a forward pass."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)


def fast_forward(
    network: nn.Module,
    device: torch.device,
    *,
    precision: InferencePrecision,
    channels_last: bool,
    compile: bool,  # noqa: A002 (the word of diffusers and torch)
) -> FastForward:
    """A network called in this way; its parameters stay where they are, in float32.

    Arguments:
        network: The module; only the memory order of its parameters may change.
        device: Where it is.
        precision: "auto" is bfloat16 where the device computes in it, else float32.
        channels_last: Keep the channels of a pixel together in memory.
        compile: Through torch.compile, which takes a minute at the first call of each shape.
    Raises:
        ValueError: If an option is not allowed on the device.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision 'float16' needs a GPU; use bfloat16, float32 or auto on CPUs")
    if precision == "auto":
        precision = "bfloat16" if computes_in_bfloat16(device) else "float32"
    on_cpu = device.type == "cpu"
    if on_cpu:
        keep_freed_memory()
    order = torch.channels_last if channels_last else torch.contiguous_format
    network.to(memory_format=order)
    if compile:
        call = CompiledNetwork(network, on_cpu=on_cpu)
    elif on_cpu and precision == "bfloat16":
        call = _as_in_training(network)
    else:
        call = network
    return FastForward(call, None if precision == "float32" else getattr(torch, precision))


def _as_in_training(network: nn.Module) -> Callable[..., UNet2DOutput]:
    """The network with the layers that make training on CPUs fast, a tenth faster in bfloat16.

    They are those of a twin over the same parameters, so that the network itself stays as it is.
    """
    tensors = chain(network.parameters(), network.buffers())
    twin = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    use_float32_attention(twin)
    use_matrix_products(twin)

    def call(x: Tensor, *args: object, **kwargs: object) -> UNet2DOutput:
        if x.device.type != "cpu":  # moved since
            return network(x, *args, **kwargs)
        if twin.training != network.training:
            twin.train(network.training)
        return twin(x, *args, **kwargs)

    return call


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001
