"""A capture is on the GPU of its work, after calls that settle it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest.mock import MagicMock

import pytest
import torch

from ddpm_pipeline.networks import capture_on_cuda

SECOND = torch.device("cuda", 1)


def test_work_on_another_gpu_is_captured_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine of two, of which the first is current."""
    current, events, replayed = [torch.device("cuda", 0)], [], MagicMock()

    @contextmanager
    def on(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    def stream(device: torch.device | None = None) -> MagicMock:
        return MagicMock(device=device or current[-1])

    @contextmanager
    def capture(graph: object, *, stream: MagicMock, capture_error_mode: str) -> Iterator[None]:
        assert graph is replayed
        events.append((stream.device, current[-1], capture_error_mode))
        yield

    for name, stand_in in {
        "CUDAGraph": lambda: replayed,
        "device": on,
        "Stream": stream,
        "current_stream": stream,
        "stream": lambda _: nullcontext(),
        "graph": capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)

    launch = capture_on_cuda(lambda: events.append(current[-1]), SECOND)
    assert events == [SECOND, SECOND, SECOND, (SECOND, SECOND, "thread_local"), SECOND]
    assert current == [torch.device("cuda", 0)]
    launch()
    replayed.replay.assert_called_once_with()
