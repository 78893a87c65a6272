"""Processes that speak to a loopback Hub, forked from one that has everything imported."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Client", "Outcome", "running_client"]


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit code, all that it printed, and the seconds it took."""

    code: int
    log: str
    seconds: float


@dataclass(frozen=True)
class Client:
    """Starts processes with the environment of one that imported the libraries with it."""

    process: subprocess.Popen[str]

    def start(self, *argv: str, script: str | None = None, **environment: str) -> int:
        """Run `ddpm` with these arguments, or a script; its pid."""
        return self._ask(argv=argv, script=script, environment=environment)

    def wait(self, pid: int) -> Outcome:
        """Wait for a process that was started."""
        return Outcome(**self._ask(pid=pid))

    def run(self, *argv: str, **options: str) -> Outcome:
        """Start, and wait."""
        return self.wait(self.start(*argv, **options))

    def _ask(self, **request: Any) -> Any:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def running_client(environment: dict[str, str], folder: Path) -> Iterator[Client]:
    """A client, whose processes write their logs into a folder."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(folder)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Client(process)
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def serve(folder: Path) -> None:
    """Fork a process for each request on stdin, or wait for one; answer on stdout."""
    import torch

    import ddpm_pipeline.cli.train
    import ddpm_pipeline.training.run  # noqa: F401

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    began: dict[int, float] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "pid" in request:
            pid = request["pid"]
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            log = (folder / f"{pid}.log").read_text()
            answer = {"code": code, "log": log, "seconds": time.monotonic() - began[pid]}
        else:
            answer = pid = _fork(folder, **request)
            began[pid] = time.monotonic()
        print(json.dumps(answer), file=answers, flush=True)


def _fork(folder: Path, argv: list[str], script: str | None, environment: dict[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    log = os.open(folder / f"{os.getpid()}.log", os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ |= environment
    from ddpm_pipeline.cli.commands import main

    if script is None:
        sys.exit(main(argv))
    sys.argv = [script, *argv]
    runpy.run_path(script, run_name="__main__")
    sys.exit(0)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
