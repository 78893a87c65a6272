"""A worker process, and a watch over the time that it takes.

    with Worker(folder, rehearse=False, data=None) as worker:
        found = worker.ask("random_words", seconds=10)

An item that hangs, or brings its process down, ends with its process and nothing else: the next
one gets a new process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from gpu.machine import environment, needed_wheels

__all__ = ["Worker"]

_START = 120.0  # seconds that a process may take to import all that it needs
NOTHING: dict[str, Any] = {"bounds": [], "numbers": {}, "columns": [], "rows": []}
_TAIL = 1500  # characters of its errors that are kept


class Worker:
    """Runs items in a process of its own, which is started when it is first needed.

    Arguments:
        folder: For what the items write.
        rehearse: Whether on the CPU, with tiny sizes.
        data: IDX files of Fashion-MNIST, or None.
        module: What the process runs.
    """

    def __init__(
        self, folder: Path, *, rehearse: bool, data: str | None, module: str = "gpu.worker"
    ) -> None:
        words = [str(folder), *(["--rehearse"] if rehearse else [])]
        words += ["--data", data] if data else []
        self._command = [sys.executable, "-m", module, *words]
        self._environment = environment(folder, rehearse=rehearse, wheels=needed_wheels())
        self._log, self._kept = folder / "worker.log", folder / "found.json"
        self._process: subprocess.Popen | None = None
        self.about: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, seconds: float = _START) -> None:
        """Start the process unless it runs, and learn what its machine is.

        Raises:
            RuntimeError: If it does not start; says how it ended.
        """
        if self._process is not None:
            return
        self._rest, log = b"", self._log.open("ab")
        with log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        about = self._read(seconds)
        if isinstance(about, str):
            reason = self._why(about)
            self.stop()
            raise RuntimeError(f"the process that runs the items {reason}")
        self.about = about

    def stop(self) -> None:
        """End the process and all that it started."""
        if self._process is None:
            return
        process, self._process = self._process, None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()

    def ask(self, name: str, seconds: float) -> dict[str, Any]:
        """Have an item run; what it found, or that it took too long or ended its process."""
        began = time.monotonic()
        self._kept.unlink(missing_ok=True)
        try:
            self.start()
            self._process.stdin.write(f"{name} {seconds:.1f}\n".encode())
            self._process.stdin.flush()
        except (RuntimeError, OSError) as error:
            self.stop()
            return _nothing("failed", str(error), began)
        found = self._read(seconds)
        if isinstance(found, str):
            verdict = "timed out" if found == "" else "failed"
            figure = f"after {seconds:.0f} s" if found == "" else self._why(found)
            self.stop()
            return {**_nothing(verdict, figure, began), **self._found_so_far()}
        if not found["usable"]:
            self.stop()
        return found

    def _found_so_far(self) -> dict[str, Any]:
        """What an item that was ended had found by then."""
        if not self._kept.exists():
            return {}
        found = json.loads(self._kept.read_text(encoding="utf-8"))
        return {name: found[name] for name in NOTHING}

    def _read(self, seconds: float) -> dict[str, Any] | str:
        """The next line as JSON; "" after so many seconds, or how the process ended."""
        until, pipe = time.monotonic() + seconds, self._process.stdout.fileno()
        while b"\n" not in self._rest:
            left = until - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                return ""
            part = os.read(pipe, 2**16)
            if not part:
                return f"ended with code {self._process.wait()}"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def _why(self, words: str) -> str:
        tail = self._log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip()
        last = tail.splitlines()[-1] if tail else "and said nothing"
        return f"{words or 'did not answer'}: {last}"


def _nothing(verdict: str, figure: str, began: float) -> dict[str, Any]:
    seconds = round(time.monotonic() - began, 2)
    return {"verdict": verdict, "figure": figure, "seconds": seconds, **NOTHING}
