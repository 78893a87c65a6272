"""Real training processes, and SIGKILL to them at random moments."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.paths import EXAMPLES

from ddpm_pipeline.training.config import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["children", "command", "kill_often", "start"]

EXAMPLE = EXAMPLES / "train.py"


def command(config: TrainingConfig, processes: int) -> list[str]:
    """Give the words that train by this config."""
    defaults, options = TrainingConfig(), []
    for name in TrainingConfig.__dataclass_fields__:
        value = getattr(config, name)
        if value == getattr(defaults, name):
            continue
        values = value if isinstance(value, tuple) else [value]
        options += [f"--{name}", *([] if value is True else map(str, values))]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    begin = [sys.executable, *(launcher if processes > 1 else [])]
    return [*begin, str(EXAMPLE), *options]


def start(config: TrainingConfig, processes: int) -> subprocess.Popen:
    """Begin to train, silently, in a session of its own."""
    return subprocess.Popen(
        command(config, processes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def children(pid: int) -> list[int]:
    """Give the processes that a process started."""
    words = ["ps", "-o", "pid=", "--ppid", str(pid)]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    return list(map(int, found.stdout.split()))


def kill(process: subprocess.Popen) -> None:
    """SIGKILL the launcher and all that it started; torchrun gives each worker a session."""
    for pid in [process.pid, *children(process.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def half_written(run: Path) -> tuple[int, int] | None:
    """Which checkpoint is being written, or was when its process was killed."""
    try:
        found = (run / "checkpoints" / ".aside").stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


def log_of(run: Path) -> tuple[int, int] | None:
    """Tell which file of metrics a run has: it is another one each time the run goes on."""
    try:
        found = (run / "metrics.jsonl").stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


def kill_often(
    config: TrainingConfig,
    processes: int,
    check: Callable[[Path], None],
    *,
    kills: int,
    within: float,
    seed: int,
) -> int:
    """Train, killed at random moments and begun again, and check every run that ends.

    Arguments:
        config: Of the run, whose folder is deleted and begun anew when a run has ended.
        processes: How many train together.
        check: Is called with the folder of each run that ended, the last one too.
        kills: How many.
        within: Seconds in which a kill comes, from when the run begins or goes on, or one time in
            ten from when the process starts; half of them wait then until a checkpoint is being
            written.
        seed: Of the moments.
    Returns:
        How many came while a checkpoint was being written.
    """
    run, dice = Path(config.output_dir), random.Random(seed)
    done = while_writing = 0
    while done < kills:
        left, before = half_written(run), log_of(run)
        process = start(config, processes)
        delay, at_checkpoint = dice.uniform(0, within), dice.random() < 0.5
        waits = dice.random() < 0.9
        while waits and log_of(run) == before and process.poll() is None:
            time.sleep(0.01)
        began = time.monotonic()
        while process.poll() is None:
            time.sleep(0.001)
            writing = half_written(run) not in {None, left}
            if time.monotonic() - began > delay and (writing or not at_checkpoint):
                kill(process)
                done += 1
                while_writing += half_written(run) not in {None, left}
                break
        else:
            assert process.returncode == 0
            check(run)
            subprocess.run(["rm", "-r", str(run)], check=True)
    assert start(config, processes).wait() == 0
    check(run)
    return while_writing
