from __future__ import annotations

import json
import re
import signal
import time
import zipfile
from pathlib import Path

import pytest
from gpu.found import Found
from gpu.machine import HIDDEN_DEVICES, ROOT, environment, needed_wheels
from gpu.plan import PLAN, chosen
from gpu.run import ending_after, main


def test_an_unknown_item_is_refused_before_anything_starts(
    capsys: pytest.CaptureFixture,
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["--only", "bound_agrees,misspelt"])
    assert ending.value.code == 2
    assert re.search(r"GPU_ONLY must name some of .*, got \['misspelt'\]", capsys.readouterr().err)


def test_items_run_in_the_order_of_the_plan() -> None:
    assert chosen("") == list(PLAN)
    assert [item.name for item in chosen("memory preflight")] == ["preflight", "memory"]
    assert len({item.name for item in PLAN}) == len(PLAN)


def test_all_ends_in_time_whatever_happens() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(SystemExit, match="ended by SIGALRM"), ending_after(0.1):
        time.sleep(60)
    assert signal.getsignal(signal.SIGALRM) == before


def test_wheels_of_the_checkout_are_on_the_path_of_the_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/before")
    monkeypatch.setenv(HIDDEN_DEVICES, "3")
    file = tmp_path / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr("some/__init__.py", "")
    found = environment(tmp_path, rehearse=False, wheels=[file])
    paths = found["PYTHONPATH"].split(":")
    assert paths[0] == str(ROOT)
    assert paths[-2:] == [str(tmp_path / "wheels"), "/before"]
    assert (tmp_path / "wheels" / "some" / "__init__.py").exists()
    assert found["CUDA_VISIBLE_DEVICES"] == "3"


def test_a_rehearsal_sees_no_gpu_and_an_installed_package_needs_no_wheel(tmp_path: Path) -> None:
    assert needed_wheels() == []
    found = environment(tmp_path, rehearse=True)
    assert found["CUDA_VISIBLE_DEVICES"] == ""
    assert str(tmp_path / "wheels") not in found["PYTHONPATH"]


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(0.5, "holds"), (1.0, "holds"), (1.5, "misses"), (float("nan"), "misses")],
)
def test_a_bound_that_is_missed_is_the_verdict(value: float, verdict: str) -> None:
    found = Found()
    found.at_most("something else", 0, 1)
    found.at_most("a gap", value, 1)
    assert found.verdict == verdict
    assert found.figure.startswith("a gap: ")


def test_speeds_are_not_judged_in_a_rehearsal() -> None:
    for judges, verdict in ((True, "misses"), (False, "measured")):
        found = Found(judges_speed=judges)
        found.speed_at_least("ratio", 1.0, 8.0)
        found.speed_at_most("share", 0.5, 0.1)
        assert found.verdict == verdict


def test_what_was_found_so_far_is_kept(tmp_path: Path) -> None:
    found = Found(kept=tmp_path / "found.json")
    found.table("loop", "images/s")
    found.row("ours", 3.0)
    assert json.loads((tmp_path / "found.json").read_text())["rows"] == [["ours", 3.0]]
    found.at_most("a gap", 2.0, 1.0)
    assert json.loads((tmp_path / "found.json").read_text()) == found.to_dict()
