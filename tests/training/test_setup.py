"""What a run starts with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.training_runs import tiny_config

from ddpm_pipeline.training.run import dry_run, train
from ddpm_pipeline.training.setup import backend_options


def switches() -> tuple[object, ...]:
    return (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("allow_tf32", [True, False])
def test_switches_of_torch_are_a_runs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allow_tf32: bool, deterministic: bool
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    config = tiny_config(
        tmp_path, allow_tf32=allow_tf32, deterministic=deterministic, max_train_steps=1
    )
    before, seen = switches(), []
    with backend_options(config):
        inside = switches()
        word = "tf32" if allow_tf32 else "ieee"
        assert inside[:4] == (allow_tf32, allow_tf32, word, word)
        assert inside[4] is deterministic
        assert inside[6] is not deterministic
    assert switches() == before
    train(config, on_log=lambda *_: seen.append(switches()))
    assert seen[0] == inside
    assert switches() == before
    dry_run(config.replace(output_dir=str(tmp_path / "other")))
    assert switches() == before
