"""Faster forward passes of a network whose weights stay what they are: ``pipe.optimize()``.

    pipe.optimize()                        # the fastest that was measured for the device
    pipe.optimize(precision="float32")     # without any of it

The network runs under autocast, from float32 weights: what is saved, hashed and measured is the
same before and after. On a CPU with bfloat16 instructions 25 steps of a trained model change by
less than a grey level on average; tests/benchmarks/test_sampling_speed.py measures how much.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from ddpm_pipeline.common import check_choice
from ddpm_pipeline.networks.compiling import CompiledNetwork
from ddpm_pipeline.networks.cpu_layers import SwappedLayers, keep_freed_memory
from ddpm_pipeline.networks.graphs import GraphedNetwork

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers.models.unets.unet_2d import UNet2DOutput
    from torch import Tensor, nn

__all__ = ["FastForward", "InferencePrecision", "computes_in_bfloat16"]


InferencePrecision = Literal["auto", "float32", "bfloat16", "float16"]
_PRECISIONS: tuple[str, ...] = get_args(InferencePrecision)


@dataclass(frozen=True, eq=False)
class FastForward:
    """A network and how its forward passes are computed.

    Arguments:
        network: The module, its compiled self, or its recorded one.
        dtype: Of autocast; None for the weights' own.
        cpu_layers: Layers to swap in on a CPU for the length of a call, a tenth faster in
            bfloat16.
    """

    network: Callable[..., UNet2DOutput]
    dtype: torch.dtype | None = None
    cpu_layers: SwappedLayers | None = None

    @classmethod
    def of(
        cls,
        network: nn.Module,
        device: torch.device,
        *,
        precision: InferencePrecision,
        channels_last: bool,
        compile: bool,  # noqa: A002 (the word of diffusers and torch)
        cuda_graph: bool = False,
    ) -> FastForward:
        """Choose how a network is called; its parameters stay where they are, in float32.

        Arguments:
            network: The module; only the memory order of its parameters may change.
            device: Where it is.
            precision: "auto" is bfloat16 where the device computes in it, else float32.
            channels_last: Keep the channels of a pixel together in memory.
            compile: Through torch.compile, which takes a minute at the first call of each shape.
            cuda_graph: Record the calls of each shape, and launch them as one.
        Raises:
            ValueError: If an option is not allowed on the device.
        """
        if cuda_graph and device.type != "cuda":
            raise ValueError(f"cuda_graph needs a GPU with CUDA, got device {device}")
        dtype = _autocast_dtype(precision, device)
        on_cpu = device.type == "cpu"
        if on_cpu:
            keep_freed_memory()
        order = torch.channels_last if channels_last else torch.contiguous_format
        network.to(memory_format=order)
        call = CompiledNetwork(network, on_cpu=on_cpu) if compile else network
        call = GraphedNetwork(network, call) if cuda_graph else call
        swap = on_cpu and not compile and dtype is not None
        return cls(call, dtype, SwappedLayers.of(network) if swap else None)

    def __call__(self, image: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Compute the network's output."""
        with self._settings(image.device):
            output = self.network(image, t, class_labels=class_labels)
        return getattr(output, "sample", output)

    @contextmanager
    def keeping_casts(self, device: torch.device) -> Iterator[None]:
        """Cast every weight once for all calls of a block, and not once for each.

        Autocast forgets its copies of the weights when the outermost of its blocks ends; this one
        is such a block, and changes nothing else. Weights must not change inside.
        """
        if self.dtype is None or self._is_recorded:
            yield
            return
        kind = device.type
        on, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        with torch.autocast(kind, dtype=dtype, enabled=on):
            yield

    @contextmanager
    def _settings(self, device: torch.device) -> Iterator[None]:
        """Put the precision and the layers in force for a forward pass.

        A recorded call has its own precision inside a caller's autocast too: a graph would go on
        reading the copies of the weights that autocast keeps, when they are freed.
        """
        if self._is_recorded:
            on = self.dtype is not None
            with torch.autocast(device.type, self.dtype, enabled=on, cache_enabled=False):
                yield
            return
        if self.dtype is None:
            yield
            return
        swap = self.cpu_layers is not None and device.type == "cpu"
        layers = self.cpu_layers.in_use() if swap else nullcontext()
        with torch.autocast(device.type, dtype=self.dtype), layers:
            yield

    @property
    def _is_recorded(self) -> bool:
        return isinstance(self.network, GraphedNetwork)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Tell whether a device has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)


def _autocast_dtype(precision: InferencePrecision, device: torch.device) -> torch.dtype | None:
    """Choose the type to compute in; None for float32, the weights' own."""
    check_choice("precision", precision, _PRECISIONS)
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision 'float16' needs a GPU; use bfloat16, float32 or auto on CPUs")
    if precision == "auto":
        precision = "bfloat16" if computes_in_bfloat16(device) else "float32"
    return None if precision == "float32" else getattr(torch, precision)
