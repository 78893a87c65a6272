"""What does not fit is refused before it is tried, by the least of all limits."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from ddpm_pipeline.common import check_memory, memory


def test_what_fits_is_not_refused_and_what_does_not_is_with_the_estimate() -> None:
    check_memory(10**6, "this", "do that")
    check_memory(2**27, "this", "do that")
    message = r"^the call takes at least 1000000\.0 GB of memory, and .* GB are free: do that$"
    with pytest.raises(ValueError, match=message):
        check_memory(10**15, "the call", "do that")


def test_no_more_is_free_than_the_machine_has() -> None:
    assert 0 < memory.available_memory() <= psutil.virtual_memory().total


def test_a_limit_of_the_address_space_counts() -> None:
    code = (
        "import resource, psutil\n"
        "from ddpm_pipeline.common import memory\n"
        "used = psutil.Process().memory_info().vms\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28,) * 2)\n"
        "print(memory.available_memory())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2**27 < int(run.stdout) <= 2**28


def test_a_limit_of_the_control_group_counts(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("10000\n")
    (tmp_path / "memory.current").write_text("7000\n")
    (tmp_path / "memory.stat").write_text("anon 6000\ninactive_file 500\n")
    assert memory.available_memory() == 3500
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_memory() > 3500
