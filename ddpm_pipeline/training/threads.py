"""How many threads a run on CPUs computes with.

    choice = choose_threads(time_update, torch.get_num_threads())
    torch.set_num_threads(choice.threads)

Threads wait for one another many times in an update. On a machine that other processes keep busy
one of them is often not running, and two threads can take ten times as long as one. So before the
first update a few are timed, without changing any weights; where they are slow or uneven, or
others compute, fewer threads are tried, and far faster ones are taken. The number of threads
changes the last bits of a result: the choice is in the checkpoints, and a resumed run keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

__all__ = ["ThreadChoice", "choose_threads", "others_compute"]


_TIMED = 3  # updates, after one that warms up, and fewer where they are slow
_SLOW = 5.0  # seconds
_UNEVEN = 2.0  # the slowest of them over the fastest
_GAIN = 1.5  # by which fewer threads must be faster
_HOPELESS = 2.0  # slower than the best: still fewer threads are not tried
_WATCHED = 0.2  # seconds in which to see whether others compute
_BUSY = 0.5  # processors that others use


@dataclass(frozen=True)
class ThreadChoice:
    """How many threads were chosen, and why.

    Arguments:
        threads: The number.
        seconds: By number of threads, the median time of an update with so many.
    """

    threads: int
    seconds: dict[int, float]

    def __str__(self) -> str:
        most = max(self.seconds)
        return (
            f"an update takes {self.seconds[most]:.2g} s with {most} threads and "
            f"{self.seconds[self.threads]:.2g} s with {self.threads}, as the machine is busy: "
            f"training with {self.threads} (num_threads={most} would keep all)"
        )


def choose_threads(
    time_update: Callable[[], float],
    threads: int,
    *,
    set_threads: Callable[[int], None] = torch.set_num_threads,
    is_busy: Callable[[], bool] | None = None,
) -> ThreadChoice:
    """Time updates, and find how many threads are fastest; leave that many set.

    All threads are kept unless fewer are faster by far.

    Arguments:
        time_update: Makes what is as good as an update; gives the seconds it took.
        threads: How many there are.
        set_threads: Has the next updates computed with so many.
        is_busy: Whether other processes compute; ``others_compute`` unless given.
    """
    busy = (is_busy or others_compute)()
    times = _times(time_update)
    best = median(times)
    seconds = {threads: best}
    is_odd = best > _SLOW or max(times) > _UNEVEN * min(times)
    fewer = threads // 2 if busy or is_odd else 0
    while fewer >= 1:
        set_threads(fewer)
        seconds[fewer] = median(_times(time_update))
        if seconds[fewer] > _HOPELESS * best:
            break
        best = min(best, seconds[fewer])
        fewer //= 2
    chosen = min(seconds, key=seconds.get)
    if seconds[threads] < _GAIN * seconds[chosen]:
        chosen = threads
    set_threads(chosen)
    return ThreadChoice(chosen, seconds)


def _times(time_update: Callable[[], float]) -> list[float]:
    time_update()
    times = [time_update()]
    while len(times) < _TIMED and sum(times) < _SLOW:
        times.append(time_update())
    return times


def others_compute() -> bool:
    """Tell whether processors are in use while this process does nothing."""
    try:
        import psutil
    except ImportError:  # it comes with accelerate
        return False
    used = psutil.cpu_percent(interval=_WATCHED) / 100 * (psutil.cpu_count() or 1)
    return used > _BUSY
