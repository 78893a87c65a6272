"""Real processes for tests, forked so that they need not import everything again."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

from accelerate.state import AcceleratorState
from tqdm import auto, std

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["exit_codes", "fork", "fork_ranks", "stand_alone"]


def fork(run: Callable[[], object], **environment: str) -> int:
    """Call a function in a new process; its pid. The exit code is 0 unless the function raises."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        stand_alone()
        os.environ |= environment
        AcceleratorState._reset_state(reset_partial_state=True)
        run()
        code = 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(code)


def stand_alone() -> None:
    """Let nothing that happens to this process stop its parent, and end when the parent ends."""
    # tqdm's own lock is shared between processes, and a killed one may hold it.
    lock = threading.RLock()
    for bars in (std.tqdm, auto.tqdm):
        bars.set_lock(lock)
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def fork_ranks(run: Callable[[], object], count: int) -> list[int]:
    """Call a function in `count` processes that form a gloo group; their pids."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    common["LOCAL_WORLD_SIZE"] = str(count)
    return [fork(run, RANK=str(rank), LOCAL_RANK=str(rank), **common) for rank in range(count)]


def exit_codes(pids: list[int]) -> list[int]:
    """Wait for processes; their exit codes, negative for signals. None outlives a failed wait."""
    codes: dict[int, int] = {}
    try:
        for pid in pids:
            codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        for pid in set(pids) - codes.keys():
            with suppress(ProcessLookupError, ChildProcessError):  # of one that was waited for
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    return list(codes.values())
