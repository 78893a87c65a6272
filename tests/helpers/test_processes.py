"""Forked processes that are killed, stuck or forgotten stop nobody else."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from helpers.processes import exit_codes, fork
from tqdm.auto import tqdm


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def test_a_process_killed_while_it_writes_its_bar_stops_no_bar_of_its_parent() -> None:
    tqdm(range(1), disable=True)  # makes the lock, if nothing has yet

    def die() -> None:
        tqdm.get_lock().acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    assert exit_codes([fork(die)]) == [-signal.SIGKILL]
    drawn = threading.Thread(target=lambda: list(tqdm(range(3))), daemon=True)
    drawn.start()
    drawn.join(10)
    assert not drawn.is_alive()


def test_a_wait_that_fails_leaves_no_process() -> None:
    def interrupt(*_: object) -> None:
        raise TimeoutError

    pids = [fork(lambda: time.sleep(60)) for _ in range(2)]

    def wait_until_interrupted() -> None:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        exit_codes(pids)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(TimeoutError):
            wait_until_interrupted()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not any(map(is_alive, pids))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_a_process_ends_with_its_parent() -> None:
    reading, writing = os.pipe()
    began, begins = os.pipe()

    def stay() -> None:
        os.write(writing, str(os.getpid()).encode())
        os.write(begins, b".")
        time.sleep(60)

    def leave_a_child() -> None:
        fork(stay)
        os.read(began, 1)  # it has asked to end with this process by now

    assert exit_codes([fork(leave_a_child)]) == [0]
    child = int(os.read(reading, 20))
    for end in (reading, writing, began, begins):
        os.close(end)
    deadline = time.monotonic() + 10
    while is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)
