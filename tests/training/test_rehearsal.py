"""Updates that are timed: none changes the run, and the first does not count."""

from __future__ import annotations

import logging
import math
from itertools import accumulate, chain, pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from helpers.training_runs import a_learner, batches, image_data

from ddpm_pipeline.training import rehearsal
from ddpm_pipeline.training.data import data_from_images
from ddpm_pipeline.training.rehearsal import measure_update, try_threads
from ddpm_pipeline.training.threads import ThreadChoice


def tried(learner: Any, **options: Any) -> int | None:
    config = learner.config.replace(**options)
    return try_threads(config, learner, data_from_images(config, image_data()))


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many threads there were at each choice; half of two is chosen, after two updates."""
    asked: list[int] = []

    def choose(time_update: Any, threads: int) -> ThreadChoice:
        asked.append(threads)
        assert time_update() > 0
        assert time_update() > 0
        return ThreadChoice(threads // 2, {threads: 10.0, threads // 2: 1.0})

    monkeypatch.setattr(rehearsal, "choose_threads", choose)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    return asked


def test_fewer_threads_are_chosen_and_said_and_nothing_is_changed(
    tmp_path: Path, choices: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    learner = a_learner(tmp_path)
    before = [p.detach().clone() for p in learner.unet.parameters()]
    assert tried(learner) == 1
    assert choices == [2]
    assert all(torch.equal(p, q) for p, q in zip(learner.unet.parameters(), before, strict=True))
    assert all(p.grad is None for p in learner.unet.parameters())
    assert not learner.optimizer.state_dict()["state"]
    learner.update(0, batches(learner))
    other = a_learner(tmp_path)
    other.update(0, batches(other))
    pairs = zip(learner.unet.parameters(), other.unet.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert said == [str(ThreadChoice(1, {2: 10.0, 1: 1.0}))]


def test_what_is_settled_is_not_tried(
    tmp_path: Path, choices: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = a_learner(tmp_path)
    assert tried(learner, num_threads=2) is None
    assert tried(learner, deterministic=True) is None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert tried(learner) is None
    assert choices == []


def test_where_all_threads_are_best_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(
        rehearsal, "choose_threads", lambda _, threads: ThreadChoice(threads, {threads: 1.0})
    )
    assert tried(a_learner(tmp_path)) is None
    assert not caplog.records


@pytest.mark.parametrize(
    ("seconds", "steps", "count"),
    [
        ([0.5, 0.1, 0.2, 0.3] + [0.2] * 20, 100, 10),  # the most that are measured
        ([1.0, 4.0, 4.0, 4.0, 4.0], 100, 3),  # ten seconds in all
        ([1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0], 100, 5),
        ([100.0, 1.0, 1.0, 1.0], 100, 3),  # never fewer than three
        ([9.0, 1.0, 3.0], 2, 2),  # no more than the run has
        ([9.0, 5.0], 1, 1),
    ],
)
def test_the_first_update_is_not_measured(
    seconds: list[float], steps: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = a_learner(tmp_path)
    clock = chain.from_iterable(pairwise([0.0, *accumulate(seconds)]))
    monkeypatch.setattr(rehearsal.time, "perf_counter", lambda: next(clock))
    config = learner.config.replace(max_train_steps=steps, lr_warmup_steps=0)
    time = measure_update(config, learner, batches(learner))
    measured = seconds[1 : count + 1]
    assert time.count == count
    assert time.seconds == pytest.approx(mean(measured))
    if count == 1:
        assert math.isnan(time.standard_error)
    else:
        assert time.standard_error == pytest.approx(stdev(measured) / math.sqrt(count), abs=1e-12)
