"""The loss and the gradients of an update by one launch: a CUDA graph.

    gradients = CapturedGradients(loss_of, parameters, device)
    loss = gradients(x_0, eps, t)           the parameters' gradients are set too

A small network is thousands of kernels of a few microseconds, and a GPU waits for the host to name
them. A graph names them once. It reads its inputs from memory that stays in place, and writes the
loss and the gradients to such memory; optimiser and averages go on as without it.

Nothing is trained while the graph is made, so that every update of a run is computed by it, also
of one that was interrupted. What draws inside, as dropout does, draws from the device's own
generator, as it is seeded when the graph is launched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ddpm_pipeline.networks import capture_on_cuda

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn

    Capture = Callable[[Callable[[], None], torch.device], Callable[[], None]]

__all__ = ["CapturedGradients"]


class CapturedGradients:
    """A loss with its gradients, computed by a graph that is captured at the first call.

    Arguments:
        loss_of: f(*inputs) gives the loss, shape (), from tensors on the device alone.
        parameters: Whose gradients are set.
        device: Where all of it is.
        capture: f(work, device) prepares and captures ``work``, and gives what launches it. Only
            a test needs another than CUDA's.
    """

    def __init__(
        self,
        loss_of: Callable[..., Tensor],
        parameters: Iterable[nn.Parameter],
        device: torch.device,
        capture: Capture | None = None,
    ) -> None:
        self._loss_of, self._parameters, self._device = loss_of, list(parameters), device
        self._capture = capture or capture_on_cuda
        self._launch: Callable[[], None] | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Compute the loss, which the next call overwrites, and set the gradients.

        Arguments:
            inputs: Of the shapes and types of the first call.
        """
        if self._launch is None:
            self._begin(inputs)
        torch._foreach_copy_(self._inputs, list(inputs))
        self._launch()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._loss

    def _begin(self, inputs: tuple[Tensor, ...]) -> None:
        """Lay out what the graph reads and writes, and capture it."""
        self._inputs = [tensor.clone() for tensor in inputs]
        self._loss = torch.zeros((), device=self._device)
        self._gradients = [torch.zeros_like(p) for p in self._parameters]
        on_cpu = self._device.type == "cpu"
        # What is drawn meanwhile is drawn again, at the first launch as at any other.
        with torch.random.fork_rng([] if on_cpu else [self._device]):
            self._launch = self._capture(self._work, self._device)

    def _work(self) -> None:
        loss = self._loss_of(*self._inputs)
        gradients = torch.autograd.grad(loss, self._parameters)
        self._loss.copy_(loss.detach())
        torch._foreach_copy_(self._gradients, gradients)
