"""Losses wait on the device until they are read, and what is not finite is never passed over."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from helpers.training_runs import tiny_config

from ddpm_pipeline.training import log
from ddpm_pipeline.training.log import DeviceLosses, MetricsFile, tracker_options


def losses(
    *rows: tuple[float, float], capacity: int = 5, check_norms: bool = True
) -> DeviceLosses:
    found = DeviceLosses(capacity, Accelerator(cpu=True), check_norms=check_norms)
    for loss, norm in rows:
        found.add(torch.tensor(loss), torch.tensor(norm))
    return found


def test_means_are_those_since_the_last_entry() -> None:
    kept = losses((1.0, 10.0), (2.0, 30.0))
    assert kept.read(2) == {"loss": 1.5, "grad_norm": 20.0}
    assert kept.read(2) == {"loss": 1.5, "grad_norm": 20.0}
    kept.clear()
    assert all(math.isnan(value) for value in kept.read(2).values())
    kept.add(torch.tensor(5.0), torch.tensor(7.0))
    assert kept.read(3) == {"loss": 5.0, "grad_norm": 7.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_step_that_is_not_finite_is_named(bad: float) -> None:
    kept = losses((1.0, 1.0), (bad, 2.0), (bad, bad))
    with pytest.raises(FloatingPointError, match=rf"the loss is {bad} with gradient norm 2"):
        kept.read(12)
    with pytest.raises(FloatingPointError, match="at step 11: try a lower learning_rate"):
        kept.read(12)


def test_a_norm_that_overflows_counts_only_without_a_loss_scale() -> None:
    rows = ((1.0, 1.0), (2.0, math.inf))
    with pytest.raises(FloatingPointError, match="gradient norm inf at step 2"):
        losses(*rows).read(2)
    assert losses(*rows, check_norms=False).read(2)["loss"] == 1.5


def test_a_state_goes_on_where_it_was_with_any_capacity() -> None:
    state = losses((1.0, 2.0), (3.0, 4.0)).state()
    for capacity in (1, 2, 9):
        kept = losses(capacity=capacity)
        kept.load(state)
        kept.add(torch.tensor(8.0), torch.tensor(9.0))
        assert kept.count == 3
        assert kept.read(3) == {"loss": 4.0, "grad_norm": 5.0}


def test_a_file_of_metrics_begins_anew_or_with_what_a_checkpoint_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("old")
    MetricsFile(path).write({"step": 1})
    assert path.read_text() == '{"step": 1}\n'
    MetricsFile(path, b'{"step": 5}\n').write({"step": 6, "loss": math.nan})
    lines = path.read_text().splitlines()
    assert json.loads(lines[0]) == {"step": 5}
    assert json.loads(lines[1])["step"] == 6


def test_a_logger_that_is_not_installed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracker_options(tiny_config(tmp_path)) == {}
    config = tiny_config(tmp_path, logger="tensorboard", logging_dir="logs")
    assert tracker_options(config) == {
        "log_with": "tensorboard",
        "project_dir": tmp_path / "run" / "logs",
    }
    monkeypatch.setattr(log, "get_available_trackers", list)
    with pytest.raises(ImportError, match="logger 'tensorboard' needs `pip install tensorboard`"):
        tracker_options(config)
