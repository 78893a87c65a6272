"""What would make a host wait for CUDA is counted, and nothing else is.

The examples are those of torch's notes on CUDA semantics and of ``set_sync_debug_mode``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from helpers.device_counts import DEVICE, DeviceCounts, stand_in_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor


@pytest.fixture
def x() -> Iterator[Tensor]:
    """A tensor on the device that is not there."""
    with stand_in_device():
        yield torch.ones(3, device=DEVICE)


READS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0]),
    "bool": lambda x: bool(x[0] > 0),
    "list": lambda x: x.tolist(),
    "to the host": lambda x: x.cpu(),
    "into the host's memory": lambda x: torch.ones(3).copy_(x),
    "from the host": lambda x: torch.ones(3).to(x.device),
    "into the device's memory": lambda x: x.copy_(torch.ones(3)),
    "of a list": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "as another": lambda x: x.new_tensor([1.0]),
    "indices of the host": lambda x: x[torch.tensor([0, 1])],
}


@pytest.mark.parametrize("ask", READS.values(), ids=READS)
def test_reads_and_blocking_copies_are_waits(x: Tensor, ask: Callable[[Tensor], object]) -> None:
    with DeviceCounts() as counts:
        ask(x)
    assert len(counts.waits) == 1
    assert not counts.pinned
    assert not counts.unpinned


@pytest.mark.parametrize(
    "ask", [lambda x: x[x > 0], torch.nonzero, lambda x: x.masked_select(x > 0)]
)
def test_sizes_that_only_the_device_knows_are_waits(
    x: Tensor, ask: Callable[[Tensor], object]
) -> None:
    with pytest.raises(NotImplementedError, match="values"), DeviceCounts() as counts:
        ask(x)
    assert len(counts.waits) == 1


QUIET: dict[str, Callable[[Tensor], object]] = {
    "arithmetic": lambda x: x.mul(2).exp_() + torch.tensor(3.0),
    "gathering": lambda x: x.index_select(0, torch.ones(2, dtype=torch.int64, device=x.device)),
    "made there": lambda x: torch.full((3,), 2.0, device=x.device) + torch.arange(3).numel(),
    "drawn": lambda x: torch.randn(3, device=x.device, generator=torch.Generator(x.device)),
    "masked": lambda x: x.masked_fill(x > 0, 1.0),
}


@pytest.mark.parametrize("ask", QUIET.values(), ids=QUIET)
def test_work_of_the_device_is_no_wait(x: Tensor, ask: Callable[[Tensor], object]) -> None:
    with DeviceCounts() as counts:
        ask(x)
    assert counts.kernels
    assert not counts.waits + counts.pinned + counts.unpinned


def test_copies_that_do_not_block_are_told_by_their_memory(x: Tensor) -> None:
    ready = torch.ones(3)
    with DeviceCounts() as counts:
        ready.to(DEVICE, non_blocking=True)
        x.copy_(ready, non_blocking=True)
        assert (len(counts.unpinned), len(counts.pinned)) == (2, 0)
        ready.pin_memory().to(DEVICE, non_blocking=True)
        x.copy_(ready.pin_memory(), non_blocking=True)
    assert (len(counts.unpinned), len(counts.pinned)) == (2, 2)
    assert not counts.waits


def test_kernels_are_counted_forward_and_backward_without_views(x: Tensor) -> None:
    weight = torch.nn.Parameter(x.clone())
    with DeviceCounts() as counts:
        (weight.view(1, 3) * x).sum().backward()
    assert counts.kernels["mul"] == 2  # of the product, and of its gradient
    assert not counts.kernels.keys() & {"view", "expand", "detach"}


def test_operators_of_the_cpu_are_counted_and_computed() -> None:
    x = torch.arange(3.0)
    with DeviceCounts("cpu") as counts:
        assert (x * 2).sum().item() == 6
    assert counts.kernels == {"mul": 1, "sum": 1, "_local_scalar_dense": 1}
    assert len(counts.waits) == 1
