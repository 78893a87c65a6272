"""Checkpoints that a thread writes are whole, in order, and never lost in silence."""

from __future__ import annotations

import copy
import signal
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.training_runs import assert_same, outcome, run_forked, tiny_config

from ddpm_pipeline.training.run import train
from ddpm_pipeline.training.storage import saving
from ddpm_pipeline.training.storage.checkpoints import Checkpoint, write_checkpoint
from ddpm_pipeline.training.storage.writer import CheckpointWriter

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("random_last_layers")

CPU = torch.device("cpu")


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread writes on CPUs too."""
    monkeypatch.setattr(saving, "CheckpointWriter", partial(CheckpointWriter, behind=True))


def test_a_cpu_writes_at_once_and_other_devices_behind() -> None:
    assert not CheckpointWriter(CPU).behind
    assert CheckpointWriter(torch.device("cuda")).behind


def test_one_is_written_at_a_time_and_told_of_where_it_is_asked_for() -> None:
    writer, told, at_once = CheckpointWriter(CPU, behind=True), [], []
    go_on, here = threading.Event(), threading.get_ident()

    def write(name: str) -> Path:
        at_once.append(1)
        go_on.wait(10)
        assert len(at_once) == 1
        at_once.pop()
        assert threading.get_ident() != here
        return Path(name)

    def tell(path: Path) -> None:
        assert threading.get_ident() == here
        told.append(path.name)

    writer.submit(partial(write, "a"), tell)
    writer.check()
    assert told == []
    go_on.set()
    writer.submit(partial(write, "b"), tell)
    assert told == ["a"]
    writer.finish()
    writer.finish()
    assert told == ["a", "b"]
    writer.close()


@pytest.mark.parametrize("ask", ["check", "finish", "submit"])
def test_errors_of_the_thread_are_raised_where_it_is_next_asked(ask: str) -> None:
    writer, failed = CheckpointWriter(CPU, behind=True), threading.Event()

    def write() -> Path:
        failed.set()
        raise OSError("the disk is full")

    writer.submit(write, lambda _: None)
    failed.wait(10)
    again = (write, lambda _: None) if ask == "submit" else ()
    with pytest.raises(OSError, match="disk is full"):
        keep_asking(partial(getattr(writer, ask), *again))
    writer.close()


def keep_asking(ask: Callable[[], None]) -> None:
    """Ask what waits for nothing until it answers."""
    while True:
        ask()


def test_a_thread_writes_what_is_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []
    at_once, beside = (
        tiny_config(tmp_path / name, lr_scheduler="constant") for name in ("at once", "beside")
    )
    train(at_once)
    monkeypatch.setattr(saving, "CheckpointWriter", partial(CheckpointWriter, behind=True))
    train(beside, on_save=lambda _, path: saved.append(path.name))
    assert_same(outcome(Path(beside.output_dir)), outcome(Path(at_once.output_dir)))
    assert [name for name in saved if name.startswith("step-")] == [
        "step-0000004", "step-0000008", "step-0000012"
    ]  # fmt: skip


def test_updates_go_on_while_a_checkpoint_of_before_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leave its tensors as they were."""
    options = {"max_train_steps": 7, "checkpointing_steps": 4, "lr_scheduler": "constant"}
    reached, waited, written = threading.Event(), [], []

    def slow(folder: Path, checkpoint: Checkpoint, **limits: object) -> Path:
        waited.append(reached.wait(30))
        written.append(copy.deepcopy(checkpoint.tensors))
        return write_checkpoint(folder, checkpoint, **limits)

    monkeypatch.setattr(saving, "write_checkpoint", slow)
    with monkeypatch.context() as patched:
        patched.setattr(saving, "CheckpointWriter", partial(CheckpointWriter, behind=True))
        config = tiny_config(tmp_path / "beside", **options)
        train(config, should_stop=lambda step: step == 6 and reached.set())
    assert waited == [True, True]  # update 6 was made before the first was written
    train(tiny_config(tmp_path / "at once", **options))
    torch.testing.assert_close(written[:2], written[2:], rtol=0, atol=0)


def test_a_run_ends_with_the_error_of_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: None
) -> None:
    config = tiny_config(tmp_path)

    def failing(*_: object, **__: object) -> Path:
        raise OSError("the checkpoint of step 4 cannot be written")

    monkeypatch.setattr(saving, "write_checkpoint", failing)
    with pytest.raises(OSError, match="step 4 cannot be written"):
        train(config)
    assert not [t for t in threading.enumerate() if t.name.startswith("checkpoint")]


def test_a_run_killed_while_its_thread_writes_ends_with_the_same_bits(
    tmp_path: Path, behind: None
) -> None:
    whole = tiny_config(tmp_path / "whole")
    train(whole)
    config = tiny_config(tmp_path / "killed")
    run = Path(config.output_dir)
    aside = run / "checkpoints" / ".aside"
    moments = [aside.exists, (aside / "optimizer.safetensors").exists, aside.exists]
    signals = [signal.SIGKILL, signal.SIGKILL, signal.SIGINT]
    codes = [run_forked(config, m, send=s) for m, s in zip(moments, signals, strict=True)]
    assert codes.count([-signal.SIGKILL]) >= 1
    assert run_forked(config) == [0]
    assert_same(outcome(run), outcome(Path(whole.output_dir)))
