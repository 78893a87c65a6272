from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from gpu.plan import Item
from gpu.run import run
from gpu.watching import Worker

ODD = """
import json, os, subprocess, sys, time
print(json.dumps({"machine": {"gpu": "odd"}, "has_device": True}), flush=True)
for line in sys.stdin:
    name = line.split()[0]
    if name == "hangs":
        child = subprocess.Popen(["sleep", "1000"])
        open(os.path.join(sys.argv[1], "child"), "w").write(str(child.pid))
        found = {"bounds": [], "numbers": {"so": "far"}, "columns": [], "rows": []}
        json.dump(found, open(os.path.join(sys.argv[1], "found.json"), "w"))
        time.sleep(1000)
    if name == "dies":
        print("the last words", file=sys.stderr, flush=True)
        os._exit(3)
    usable = name != "breaks"
    found = {"verdict": "holds", "figure": str(os.getpid()), "seconds": 0.0, "usable": usable}
    print(json.dumps(found), flush=True)
"""


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    (tmp_path / "odd_worker.py").write_text(ODD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Worker(tmp_path, rehearse=True, data=None, module="odd_worker") as worker:
        yield worker


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_item_that_hangs_ends_with_all_it_started_and_the_next_one_runs(
    odd: Worker, tmp_path: Path
) -> None:
    first = odd.ask("fine", 30)["figure"]
    began = time.monotonic()
    found = odd.ask("hangs", 0.5)
    assert found["verdict"] == "timed out"
    assert found["numbers"] == {"so": "far"}
    assert 0.5 <= time.monotonic() - began < 10
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while is_running(child) and time.monotonic() < deadline:
        os.sched_yield()
    assert not is_running(child)
    assert odd.ask("fine", 30)["figure"] != first


def test_an_item_that_ends_its_process_says_how(odd: Worker) -> None:
    found = odd.ask("dies", 30)
    assert found["verdict"] == "failed"
    assert found["figure"] == "ended with code 3: the last words"
    assert found["numbers"] == {}
    assert odd.ask("fine", 30)["verdict"] == "holds"


def test_a_process_whose_device_is_broken_is_replaced(odd: Worker) -> None:
    first = odd.ask("fine", 30)["figure"]
    assert odd.ask("fine", 30)["figure"] == first
    assert odd.ask("breaks", 30)["figure"] == first
    assert odd.ask("fine", 30)["figure"] != first


def test_a_process_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    with (
        Worker(tmp_path, rehearse=True, data=None, module="no_such_worker") as worker,
        pytest.raises(RuntimeError, match=r"ended with code 1: .*no_such_worker"),
    ):
        worker.start()


def test_what_there_is_no_time_for_is_not_run(odd: Worker, tmp_path: Path) -> None:
    items = [Item(name, "checks.any", 30, "") for name in ("fine", "other")]
    now = time.monotonic()
    found = [answer for _, answer in run(items, odd, tmp_path / "out", 1, began=now - 53)]
    assert [answer["verdict"] for answer in found] == ["not run", "not run"]
    assert not (tmp_path / "out").exists()
    found = [answer for _, answer in run(items, odd, tmp_path / "out", 5, began=now)]
    assert [answer["verdict"] for answer in found] == ["holds", "holds"]
    assert (tmp_path / "out" / "gpu_checks.json").exists()
