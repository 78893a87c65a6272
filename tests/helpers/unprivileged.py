"""Another, unprivileged user, and a disk that is full, where tests run as root."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.processes import stand_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["as_nobody", "command", "open_place", "small_disk"]

_NOBODY = 65534


@contextmanager
def open_place() -> Iterator[Path]:
    """A folder that every user may enter and write into, as those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="ddpm-"))
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def as_nobody(work: Callable[[], str]) -> str:
    """Call a function as a user without rights, in a process of its own; what it returns.

    Where tests do not run as root, they have no rights either. What it imports must have been
    imported already: not every user may read where Python is.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(_NOBODY)
                os.setuid(_NOBODY)
            stand_alone()  # after which another user's would end with its parent no more
            said = work()
        except BaseException as error:  # noqa: BLE001
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said


def command(*words: object) -> str:
    """Run a ``ddpm`` command in this process: its exit code, and all that it prints."""
    from ddpm_pipeline.cli.commands import main

    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        code = main([str(word) for word in words])
    return f"{code} {printed.getvalue()}"


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of its own of so many bytes; skips the test where none can be mounted."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
