"""Fewer threads are taken where they are far faster, and a resumed run keeps them."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers.training_runs import assert_same, outcome, tiny_config

from ddpm_pipeline.training import rehearsal
from ddpm_pipeline.training.run import train
from ddpm_pipeline.training.threads import ThreadChoice, choose_threads, others_compute


class Machine:
    """Updates that take as long as a table says, by the number of threads."""

    def __init__(self, seconds: dict[int, list[float]]) -> None:
        self.seconds = {threads: list(times) for threads, times in seconds.items()}
        self.threads, self.tried = max(seconds), {max(seconds)}

    def set_threads(self, threads: int) -> None:
        self.threads = threads
        self.tried.add(threads)

    def time_update(self) -> float:
        times = self.seconds[self.threads]
        times.append(times.pop(0))
        return times[-1]

    def choose(self, *, busy: bool) -> ThreadChoice:
        return choose_threads(
            self.time_update, self.threads, set_threads=self.set_threads, is_busy=lambda: busy
        )


def test_of_two_threads_one_is_taken_where_it_is_far_faster() -> None:
    machine = Machine({2: [9.0, 16.0, 12.0, 10.0], 1: [0.55] * 4})
    choice = machine.choose(busy=True)
    assert (choice.threads, machine.threads) == (1, 1)
    assert str(choice) == (
        "an update takes 16 s with 2 threads and 0.55 s with 1, as the machine is busy: training "
        "with 1 (num_threads=2 would keep all)"
    )


def test_uneven_updates_have_fewer_threads_tried_on_a_machine_that_seems_idle() -> None:
    machine = Machine({2: [1.0, 0.3, 0.9, 1.0], 1: [0.2] * 4})
    assert machine.choose(busy=False).threads == 1


def test_even_updates_on_an_idle_machine_keep_all_threads_and_try_nothing() -> None:
    machine = Machine({16: [1.0, 1.1, 1.2, 1.0]})
    assert machine.choose(busy=False).threads == 16
    assert machine.tried == {16}


def test_slow_updates_are_not_timed_often() -> None:
    """On a machine whose other processes cannot be seen, slow is reason enough to try."""
    machine = Machine({2: [9.0, 16.0, 12.0, 10.0], 1: [0.55] * 4})
    assert machine.choose(busy=False).threads == 1
    assert machine.seconds[2] == [12.0, 10.0, 9.0, 16.0]  # two were made


def test_still_fewer_threads_are_tried_until_they_are_twice_as_slow_as_the_best() -> None:
    machine = Machine({8: [4.0] * 4, 4: [3.0] * 4, 2: [7.0] * 4, 1: [0.5] * 4})
    assert machine.choose(busy=True).threads == 8
    assert machine.tried == {8, 4, 2}


def test_all_threads_are_kept_unless_the_gain_is_large() -> None:
    machine = Machine({2: [1.0] * 4, 1: [0.8] * 4})
    assert (machine.choose(busy=True).threads, machine.threads) == (2, 2)


def test_the_best_of_many_is_found_and_hopeless_ones_are_left() -> None:
    machine = Machine({16: [9.0] * 4, 8: [2.0] * 4, 4: [1.0] * 4, 2: [3.5] * 4, 1: [9.0] * 4})
    assert (machine.choose(busy=True).threads, machine.threads) == (4, 4)
    assert 1 not in machine.tried


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that compute for at most 20 seconds."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_spin, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _spin() -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        pass


def test_a_busy_neighbour_is_noticed() -> None:
    with busy_processes(2):
        assert others_compute()


def test_a_run_beside_a_busy_process_tries_fewer_threads(tmp_path: Path) -> None:
    """Whichever is faster here, the run ends, says what it took, and leaves torch as it was."""
    torch.set_num_threads(2)
    try:
        with busy_processes(2):
            result = train(tiny_config(tmp_path, max_train_steps=4))
        assert (result.finished, torch.get_num_threads()) == (True, 2)
    finally:
        torch.set_num_threads(1)
    state = json.loads((tmp_path / "run/checkpoints/step-0000004/state.json").read_text())
    assert state["num_threads"] in {None, 1}


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One thread always seems far faster than two; how often that was tried."""
    tried: list[int] = []

    def choose(time_update: object, threads: int) -> ThreadChoice:
        time_update()
        tried.append(threads)
        torch.set_num_threads(1)
        return ThreadChoice(1, {2: 9.0, 1: 0.5})

    monkeypatch.setattr(rehearsal, "choose_threads", choose)
    torch.set_num_threads(2)
    yield tried
    torch.set_num_threads(1)


def test_a_resumed_run_keeps_the_choice_and_its_bits(
    tmp_path: Path, two_threads: list[int]
) -> None:
    seen: list[int] = []

    def stop(step: int) -> bool:
        seen.append(torch.get_num_threads())
        return step == 5

    config = tiny_config(tmp_path)
    assert not train(config, should_stop=stop).finished
    assert train(config, should_stop=lambda step: stop(step + 100)).finished
    assert (two_threads, set(seen), torch.get_num_threads()) == ([2], {1}, 2)
    whole = tiny_config(tmp_path / "whole")
    torch.set_num_threads(1)
    train(whole)
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "whole" / "run"))


def test_a_number_that_was_given_is_taken(tmp_path: Path, two_threads: list[int]) -> None:
    seen: list[int] = []
    config = tiny_config(tmp_path, max_train_steps=1, num_threads=3)
    train(config, should_stop=lambda _: bool(seen.append(torch.get_num_threads())))
    assert (two_threads, seen) == ([], [3])
