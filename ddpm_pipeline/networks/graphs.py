"""Calls of a network as CUDA graphs: recorded once, and then one launch each.

    call = GraphedNetwork(unet, unet)
    call(image, t, class_labels=labels)

A small network keeps its host busier than its GPU: some hundred kernels, of a few microseconds
each, have to be launched one by one. A graph launches all of them together. It reads its inputs
where they were when it was recorded and writes its output where it was then, so inputs are copied
there, and the output is copied from there. Calls of several threads or streams follow one another.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ddpm_pipeline.networks.capturing import capture_on_cuda

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

__all__ = ["GraphedNetwork"]


@dataclass(frozen=True, eq=False)
class _Recording:
    launch: Callable[[], None]
    inputs: list[Tensor]
    output: Tensor
    # When the output has been copied; another call may come on another stream.
    is_read: torch.cuda.Event

    def __call__(self, inputs: list[Tensor]) -> Tensor:
        stream = torch.cuda.current_stream(self.output.device)
        stream.wait_event(self.is_read)
        for held, given in zip(self.inputs, inputs, strict=True):
            held.copy_(given)
        self.launch()
        output = self.output.clone()
        stream.record_event(self.is_read)
        return output


class GraphedNetwork:
    """A network that is called as it is, with a graph for each shape of its inputs.

    The weights are read where they are, so that their values may change from call to call; when
    they are moved, all is recorded anew. Hooks run only while a call is recorded.

    Arguments:
        network: The module, in evaluation mode, on a GPU.
        call: How it is called: the module, or its compiled self.
    """

    def __init__(self, network: nn.Module, call: Callable[..., object]) -> None:
        self._network, self._call = network, call
        self._recordings: dict[tuple, _Recording] = {}
        self._places: tuple[int, ...] = ()
        self._lock = Lock()  # the inputs of a recording are those of one call at a time

    def __reduce__(self) -> tuple:
        """Copy and pickle without the recordings, which are those of this process."""
        return type(self), (self._network, self._call)

    def __call__(self, image: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Compute the network's output."""
        inputs = [image, t, *(() if class_labels is None else (class_labels,))]
        shapes = tuple((x.shape, x.dtype, x.device) for x in inputs)
        with self._lock:
            places = tuple(p.data_ptr() for p in self._network.parameters())
            if places != self._places:
                self._recordings.clear()
                self._places = places
            if shapes not in self._recordings:
                self._recordings[shapes] = self._record(inputs)
            return self._recordings[shapes](inputs)

    def _record(self, inputs: list[Tensor]) -> _Recording:
        held, found = [x.clone() for x in inputs], []

        def work() -> None:
            found[:] = [self._output(held)]

        launch = capture_on_cuda(work, inputs[0].device)
        return _Recording(launch, held, *found, torch.cuda.Event())

    def _output(self, inputs: list[Tensor]) -> Tensor:
        image, t, *labels = inputs
        output = self._call(image, t, class_labels=labels[0] if labels else None)
        return getattr(output, "sample", output)
