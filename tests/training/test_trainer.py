"""The course of a run: whatever ends it early, it goes on to the same bits."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.image_samples import encoded, write_tar
from helpers.training_runs import assert_same, blobs, outcome, run_forked, tiny_config

from ddpm_pipeline.training.learner import Learner
from ddpm_pipeline.training.run import train

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ddpm_pipeline.data.images import Batch


pytestmark = pytest.mark.usefixtures("random_last_layers")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict:
    config = tiny_config(tmp_path_factory.mktemp("whole"), validation_size=0.2)
    train(config)
    return outcome(Path(config.output_dir))


def test_two_runs_agree(tmp_path: Path, uninterrupted: dict) -> None:
    config = tiny_config(tmp_path, validation_size=0.2)
    train(config)
    assert_same(outcome(Path(config.output_dir)), uninterrupted)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_run_killed_at_any_point_ends_with_the_same_bits(
    tmp_path: Path, uninterrupted: dict
) -> None:
    config = tiny_config(tmp_path, validation_size=0.2)
    run = Path(config.output_dir)
    moments = [
        (run / "training_config.json").exists,
        (run / "checkpoints" / ".aside" / "optimizer.safetensors").exists,
        lambda: lines(run / "metrics.jsonl") >= 1,  # between checkpoints
        (run / "checkpoints" / ".aside").exists,
        lambda: any(run.glob(".folder.*.writing")),
    ]
    killed = [run_forked(config, moment) for moment in moments].count([-signal.SIGKILL])
    assert killed >= 3
    assert run_forked(config) == [0]
    assert_same(outcome(run), uninterrupted)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on_to_the_same_bits(
    tmp_path: Path, uninterrupted: dict, sent: int
) -> None:
    config = tiny_config(tmp_path, validation_size=0.2)
    run = Path(config.output_dir)
    code = run_forked(config, lambda: lines(run / "metrics.jsonl") >= 1, send=sent)
    assert code == [0]
    saved = max(run.glob("checkpoints/step-*"))
    assert not (run / "model_index.json").exists()
    assert 5 <= int(saved.name[5:]) < 12
    assert run_forked(config) == [0]
    assert_same(outcome(run), uninterrupted)


def test_a_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, gradient_accumulation_steps=10**5)
    run, sent = Path(config.output_dir), []

    def twice() -> bool:
        """After the first signal, before the end of a step that takes minutes."""
        if (run / "metrics.jsonl").exists():
            sent.append(time.monotonic())
        return len(sent) == 1 or (bool(sent) and sent[-1] - sent[0] > 0.5)

    code = run_forked(config, twice, send=signal.SIGINT, times=2)
    assert code == [-signal.SIGINT]
    assert not list(run.glob("checkpoints/step-*"))


@pytest.mark.slow
def test_stock_loses_the_randomness_of_other_processes(tmp_path: Path) -> None:
    options = {"gradient_accumulation_steps": 2, "train_batch_size": 2, "validation_size": 0.2}
    whole = tiny_config(tmp_path / "whole", **options)
    assert run_forked(whole, processes=2) == [0, 0]
    config = tiny_config(tmp_path / "killed", **options)
    run = Path(config.output_dir)
    codes = run_forked(config, lambda: lines(run / "metrics.jsonl") >= 1, processes=2)
    assert codes == [-signal.SIGKILL] * 2
    codes = run_forked(
        config, lambda: lines(run / "metrics.jsonl") >= 2, send=signal.SIGTERM, processes=2
    )
    assert codes == [0, 0]
    assert not (run / "model_index.json").exists()
    assert run_forked(config, processes=2) == [0, 0]
    assert_same(outcome(run), outcome(Path(whole.output_dir)))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_all_that_a_run_remembers_is_resumed(tmp_path: Path, optimizer: str) -> None:
    """The losses that importance sampling draws by, several averages, an order of memory."""
    options = {
        "optimizer": optimizer,
        "timestep_sampler": "importance",
        "ddpm_num_steps": 3,  # past ten losses of each timestep at the checkpoint
        "ema_decay": (0.5, 0.9),
        "channels_last": True,
        "validation_size": 0.2,
        "train_batch_size": 8,
        "logging_steps": 1,
    }
    whole = tiny_config(tmp_path / "whole", **options)
    train(whole)
    expected = outcome(Path(whole.output_dir))
    assert any(name.startswith("timesteps/") for name in expected["tensors"])
    config = tiny_config(tmp_path / "killed", **options)
    run = Path(config.output_dir)
    assert run_forked(config, lambda: lines(run / "metrics.jsonl") >= 9) == [-signal.SIGKILL]
    assert run_forked(config) == [0]
    assert_same(outcome(run), expected)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_stream_is_resumed_to_the_same_bits(tmp_path: Path, processes: int) -> None:
    for shard in range(4):
        images = {f"{i:04d}.png": encoded(blobs(1, seed=shard * 9 + i)[0]) for i in range(9)}
        write_tar(tmp_path / f"part-{shard:02d}.tar", images)
    options = {"streaming": True, "channels": 1, "train_batch_size": 2, "shuffle_buffer": 5}
    shards = str(tmp_path / "part-{00..03}.tar")
    whole, config = (
        tiny_config(tmp_path / name, **options).replace(train_data_dir=shards)
        for name in ("whole", "killed")
    )
    assert run_forked(whole, processes=processes) == [0] * processes
    run = Path(config.output_dir)
    codes = run_forked(config, lambda: lines(run / "metrics.jsonl") >= 2, processes=processes)
    assert codes == [-signal.SIGKILL] * processes
    assert run_forked(config, processes=processes) == [0] * processes
    assert_same(outcome(run), outcome(Path(whole.output_dir)))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, logging_steps=50, save_images_steps=0)
    update = Learner.update

    def poisoned(self: Learner, step: int, source: Iterator[Batch]) -> tuple:
        if step == 6:
            next(iter(self.parameters.values())).data.fill_(float("nan"))
        return update(self, step, source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "update", poisoned)
        with pytest.raises(
            FloatingPointError, match=r"nan .* at step 7: try a lower learning_rate"
        ):
            train(config)
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert saved.name == "step-0000004"
    assert train(config).finished  # from there, unpoisoned


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_disk_that_is_full_ends_the_run_with_the_checkpoint_intact(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], processes: int
) -> None:
    config = tiny_config(tmp_path, train_batch_size=2, lr_scheduler="constant")
    first = config.replace(max_train_steps=4)
    assert run_forked(first, processes=processes) == [0] * processes
    codes = run_forked(config, processes=processes, file_limit=8000)
    assert codes == [1] * processes
    assert "checkpoint of step 8 cannot be written" in capfd.readouterr().err
    checkpoints = tmp_path / "run" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-0000004"]
    assert run_forked(config, processes=processes) == [0] * processes
    whole = tiny_config(tmp_path / "whole", train_batch_size=2, lr_scheduler="constant")
    assert run_forked(whole, processes=processes) == [0] * processes
    model = outcome(tmp_path / "run")["model"]
    expected = outcome(tmp_path / "whole" / "run")["model"]
    assert all(torch.equal(model[name], expected[name]) for name in expected)
