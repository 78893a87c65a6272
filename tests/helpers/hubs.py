"""The loopback Hub for tests: its process, what it was asked, and clients in new processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

__all__ = ["Hub", "running_hub"]

TESTS = Path(__file__).parents[1]
CLIENT_TIMEOUT = 100  # seconds


@dataclass(frozen=True)
class Hub:
    """A running server.

    Arguments:
        url: Its address, for HF_ENDPOINT.
        folder: Where clients keep their caches.
        process: The server.
    """

    url: str
    folder: Path
    process: subprocess.Popen[str]

    def fail(self, *faults: dict[str, Any]) -> None:
        """Let the next requests fail as ``loopback_hub.faults.Fault`` says; none is no faults."""
        self._ask("faults", {"faults": faults})

    def reset(self) -> None:
        """Start anew: no repositories, no faults, no requests."""
        self._ask("reset")

    def requests(self) -> list[dict[str, Any]]:
        """All requests since the last time."""
        return self._ask("log")

    def repo(self, name: str) -> dict[str, Any]:
        """A repository with its commits, as ``loopback_hub.store.Repo``."""
        return self._ask("state")[name]

    def files(self, name: str, revision: str = "main") -> dict[str, dict[str, Any]]:
        """What a branch or tag holds."""
        repo = self.repo(name)
        sha = (repo["branches"] | repo["tags"] | repo["pull_requests"])[revision]
        return repo["commits"][sha]["tree"]

    def content(self, name: str, path: str, revision: str = "main") -> bytes:
        """A file's bytes."""
        entry = self.files(name, revision)[path]
        kept = ("lfs", entry["sha256"]) if entry["sha256"] else ("git", entry["oid"])
        return self.folder.joinpath("server", *kept).read_bytes()

    def num_commits(self, name: str) -> int:
        """Commits in the repository, with its first."""
        return len(self.repo(name)["commits"])

    def environment(
        self,
        *,
        token: str | None = "hf_alice",
        home: str = "home",
        has_xet: bool = False,
        is_offline: bool = False,
    ) -> dict[str, str]:
        """What makes a new process a client; home names its cache, empty when first used."""
        dropped = ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET")
        environment = {k: v for k, v in os.environ.items() if k not in dropped}
        environment |= {"HF_ENDPOINT": self.url, "HF_HOME": str(self.folder / home)}
        environment["HF_XET_HIGH_PERFORMANCE"] = "0"
        if token is not None:
            environment["HF_TOKEN"] = token
        if not has_xet:
            environment["HF_HUB_DISABLE_XET"] = "1"
        if is_offline:
            environment["HF_HUB_OFFLINE"] = "1"
        return environment

    def python(
        self,
        code: str,
        *arguments: object,
        check: bool = True,
        extra: dict[str, str] | None = None,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run code in a new process with ``environment(**options)``; sys.argv[1:] are arguments.

        With check, what it printed to stderr is in the error if it fails.
        """
        run = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=self.environment(**options) | (extra or {}),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=CLIENT_TIMEOUT,
            check=False,
        )
        if check and run.returncode:
            raise AssertionError(f"exit code {run.returncode}\n{run.stdout}\n{run.stderr}")
        return run

    def _ask(self, what: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(f"{self.url}/_test/{what}", data=data), timeout=10) as answer:
            return json.loads(answer.read())


@contextmanager
def running_hub(folder: Path, *, reads_xet: bool = False) -> Iterator[Hub]:
    """A Hub without repositories, for as long as the context lasts.

    Arguments:
        folder: Where it and its clients keep their files.
        reads_xet: Whether clients download by xet what was uploaded by xet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k != "HUB_XET_READ"}
    process = subprocess.Popen(
        [sys.executable, "-m", "helpers.loopback_hub", "0", str(folder / "server")],
        env=environment
        | ({"HUB_XET_READ": "1"} if reads_xet else {})
        | {"PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        port = int(process.stdout.readline())
        yield Hub(f"http://127.0.0.1:{port}", folder, process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
