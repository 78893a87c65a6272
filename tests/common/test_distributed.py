"""Processes that know each other: real gloo groups of two, and one process alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from accelerate import Accelerator
from helpers.processes import exit_codes, fork_ranks
from torch import distributed

from ddpm_pipeline.common.distributed import (
    draw_seed,
    join_restarted_processes,
    on_main,
    process_state,
    shared_accelerator,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def results_of_two(tmp_path: Path, run: Callable[[int], object]) -> list[object]:
    """What a function of the rank gives on each of two processes."""

    def write() -> None:
        rank = process_state().process_index
        (tmp_path / f"{rank}.json").write_text(json.dumps(run(rank)))

    assert exit_codes(fork_ranks(write, 2)) == [0, 0]
    return [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]


def test_one_process_alone() -> None:
    state = process_state()
    assert (state.num_processes, state.is_main_process) == (1, True)
    assert shared_accelerator() is None
    assert on_main(lambda: 7, state) == 7


def test_an_error_of_one_process_keeps_its_trace() -> None:
    error = ValueError("mine")

    def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="mine") as caught:
        on_main(fail, process_state())
    assert caught.value is error


def test_two_processes_know_each_other(tmp_path: Path) -> None:
    def run(_: int) -> list[object]:
        state, accelerator = process_state(), shared_accelerator()
        total = accelerator.reduce(torch.tensor(1.0 + state.process_index))
        return [state.num_processes, accelerator.process_index, float(total)]

    assert results_of_two(tmp_path, run) == [[2, 0, 3.0], [2, 1, 3.0]]


def test_work_of_the_main_process_is_done_once_and_known_to_all(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.write_text("")

    def run(rank: int) -> object:
        def work() -> dict[str, int]:
            with calls.open("a") as file:
                file.write(f"{rank} ")
            return {"found": 5}

        return on_main(work, process_state())

    assert results_of_two(tmp_path, run) == [{"found": 5}, {"found": 5}]
    assert calls.read_text() == "0 "


def test_an_error_of_the_main_process_is_raised_by_all(tmp_path: Path) -> None:
    def fail() -> None:
        raise FileExistsError("the folder is in use")

    def run(_: int) -> str:
        try:
            on_main(fail, process_state())
        except FileExistsError as error:
            return str(error)
        return "nothing"

    assert results_of_two(tmp_path, run) == ["the folder is in use"] * 2


def test_a_seed_is_drawn_from_the_generator() -> None:
    expected = torch.randint(2**63 - 1, (1,), generator=torch.Generator().manual_seed(3)).item()
    generator = torch.Generator().manual_seed(3)
    assert draw_seed(generator) == expected
    assert draw_seed(generator) != expected
    torch.manual_seed(3)
    assert draw_seed(None) == expected


def test_a_saved_seed_takes_the_place_of_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    assert draw_seed(None, saved=11) == 11
    assert torch.equal(torch.get_rng_state(), before)
    generator = torch.Generator().manual_seed(3)
    assert draw_seed(generator, saved=11) == draw_seed(torch.Generator().manual_seed(3))


def test_two_processes_draw_the_seed_of_the_first(tmp_path: Path) -> None:
    def run(rank: int) -> int:
        return draw_seed(torch.Generator().manual_seed(rank), Accelerator(cpu=True))

    expected = draw_seed(torch.Generator().manual_seed(0))
    assert results_of_two(tmp_path, run) == [expected, expected]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TORCHELASTIC_RESTART_COUNT": "0", "GROUP_WORLD_SIZE": "1"},
        {"TORCHELASTIC_RESTART_COUNT": "2", "GROUP_WORLD_SIZE": "2"},
    ],
)
def test_without_a_restart_on_one_machine_nothing_is_joined(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name in ("TORCHELASTIC_RESTART_COUNT", "GROUP_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    join_restarted_processes()
    assert not distributed.is_initialized()


def test_restarted_processes_meet_in_a_group_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")

    def write() -> None:
        join_restarted_processes()
        assert distributed.is_initialized()
        state = process_state()  # takes the group that is there
        total = torch.tensor([1.0 + state.process_index])
        distributed.all_reduce(total)
        (tmp_path / f"{state.process_index}").write_text(f"{state.num_processes} {float(total)}")

    assert exit_codes(fork_ranks(write, 2)) == [0, 0]
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["2 3.0", "2 3.0"]
