"""State files: whole after a kill, saved no more than wanted, and nothing without a path."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.processes import exit_codes, fork

from ddpm_pipeline.common import state_file
from ddpm_pipeline.common.state_file import StateFile

if TYPE_CHECKING:
    from pathlib import Path

STATE = {"settings": {"T": 10, "kind": "x"}, "done": 3, "sums": {"total": torch.arange(4.0)}}


def test_a_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "x.state")
    assert file.load() is None
    file.save(STATE)
    found = StateFile(str(tmp_path / "x.state")).load()
    assert {**found, "sums": None} == {**STATE, "sums": None}
    assert torch.equal(found["sums"]["total"], STATE["sums"]["total"])
    file.save({"done": 4})
    assert file.load() == {"done": 4}
    assert [path.name for path in tmp_path.iterdir()] == ["x.state"]


def test_the_end_of_a_run_leaves_no_file(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "x.state")
    file.save(STATE)
    file.delete()
    assert list(tmp_path.iterdir()) == []
    file.delete()


def test_without_a_path_nothing_is_kept() -> None:
    file = StateFile(None)
    file.save(STATE)
    assert file.load() is None
    file.delete()


def test_other_processes_read_and_do_not_write(tmp_path: Path) -> None:
    StateFile(tmp_path / "x.state").save({"done": 1})
    other = StateFile(tmp_path / "x.state", writes=False)
    assert other.load() == {"done": 1}
    other.save({"done": 2})
    other.delete()
    assert other.load() == {"done": 1}


def test_a_process_killed_while_it_saves_leaves_the_last_state(tmp_path: Path) -> None:
    class Deadly:
        """Kills the process that pickles it, after what was before it."""

        def __reduce__(self) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    file = StateFile(tmp_path / "x.state")
    file.save({"done": 1})
    assert exit_codes([fork(lambda: file.save({**STATE, "x": Deadly()}))]) == [-signal.SIGKILL]
    assert file.load() == {"done": 1}


def test_states_that_would_run_code_are_not_loaded(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple:
            return print, ("run",)

    torch.save({"x": Code()}, tmp_path / "x.state")
    with pytest.raises(Exception, match="Weights only load failed"):
        StateFile(tmp_path / "x.state").load()


@pytest.mark.parametrize(("share", "passed_over"), [(1.0, 0), (0.5, 10), (0.1, 90)])
def test_saving_takes_no_more_than_its_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, passed_over: int
) -> None:
    """A saving of 10 s is followed by 10 (1 / share - 1) s without one."""
    now = 0.0

    def save(state: dict, file: object) -> None:
        nonlocal now
        now += 10
        file.write(str(state["done"]).encode())

    monkeypatch.setattr(state_file.time, "monotonic", lambda: now)
    monkeypatch.setattr(state_file.torch, "save", save)
    file = StateFile(tmp_path / "x.state", largest_share=share)
    file.save({"done": 1})
    file.save({"done": 2})
    assert file.path.read_text() == ("1" if passed_over else "2")
    now = 10.0 + passed_over - 0.001 if passed_over else now
    file.save({"done": 3})
    assert file.path.read_text() == ("1" if passed_over else "3")
    now += 0.002
    file.save({"done": 4})
    assert file.path.read_text() == "4"


def test_what_a_killed_save_left_goes_with_the_state(tmp_path: Path) -> None:
    left = tmp_path / ".state.7-0123abcd.writing"
    left.write_bytes(b"half")
    StateFile(tmp_path / "state").delete()
    assert not left.exists()


@pytest.mark.parametrize("content", [b"", b"no state", b"PK\x03\x04 cut"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bound.state"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bound\.state' is damaged; delete it"):
        StateFile(path).load()
