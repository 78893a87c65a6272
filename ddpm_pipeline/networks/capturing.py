"""Work on a GPU as a CUDA graph: captured once, and then one launch.

launch = capture_on_cuda(work, device)
launch()                                work once more, on the same memory
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["capture_on_cuda"]


_WARM_UPS = 3  # torch compiles, and its libraries choose and allocate, before the capture


def capture_on_cuda(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Run some work until nothing about it changes, then capture it in a CUDA graph.

    Other threads, which pin memory and write checkpoints, are not captured and do not fail it.

    Arguments:
        work: Reads and writes memory that stays in place.
        device: The GPU of the work, whichever is the current one.
    Returns:
        What launches the graph.
    """
    with torch.cuda.device(device):
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UPS):
                work()
        torch.cuda.current_stream(device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Unless told, torch captures on one stream for the whole process, of whichever GPU was
        # the current one at the first capture.
        aside = torch.cuda.Stream(device)
        with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            work()
    return graph.replay
