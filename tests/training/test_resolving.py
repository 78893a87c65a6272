"""What is settled by the data and the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.training_runs import a_learner, tiny_config

from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.resolving import notices, resolve
from ddpm_pipeline.training.run import train

pytestmark = pytest.mark.usefixtures("random_last_layers")


def test_stock_has_no_max_steps(tmp_path: Path) -> None:
    """Whichever of epochs and steps ends first; the learning rate ends there too."""
    cases = [(1, None, 10), (1, 3, 3), (1, 30, 10), (None, 30, 30), (None, 2000, 2000)]
    for epochs, steps, expected in [*cases, (None, None, 1000)]:
        learner = a_learner(tmp_path, num_epochs=epochs, max_train_steps=steps)
        assert learner.config.max_train_steps == expected
        assert learner.learning_rate(expected) == 0 < learner.learning_rate(expected - 1)
    result = train(tiny_config(tmp_path, max_train_steps=3))
    assert result.global_step == 3


def test_warm_up_takes_at_most_half_of_a_short_run() -> None:
    """One that was given is taken as it is, and said to be too long."""
    given = TrainingConfig(lr_warmup_steps=100, max_train_steps=10)
    given = resolve(given, length=None, world_size=1, device=torch.device("cpu"))
    assert given.lr_warmup_steps == 100
    assert "lr_warmup_steps=100 is more than the run's 10 updates" in notices(given, None)[0]
    config = TrainingConfig(max_train_steps=10)
    config = resolve(config, length=None, world_size=1, device=torch.device("cpu"))
    assert (config.lr_warmup_steps, notices(config, None)) == (5, [])
    assert resolve(config, length=None, world_size=1, device=torch.device("cpu")) == config


def test_muon_is_for_whole_matrices_in_bfloat16() -> None:
    def resolved(**options: object) -> tuple[str, float, int]:
        config = TrainingConfig(max_train_steps=1000, **options)
        config = resolve(config, length=None, world_size=2, device=torch.device("cpu"))
        return config.optimizer, config.learning_rate, config.lr_warmup_steps

    muon, adamw = ("muon", 2e-3, 25), ("adamw", 1e-3, 100)
    assert resolved(mixed_precision="bf16") == resolved(optimizer="muon") == muon
    assert resolved(mixed_precision="no") == resolved(optimizer="adamw") == adamw
    assert resolved(mixed_precision="bf16", fsdp=True) == adamw
    own = {"learning_rate": 0.5, "lr_warmup_steps": 3}
    assert resolved(mixed_precision="bf16", **own) == ("muon", 0.5, 3)
    with pytest.raises(ValueError, match="optimizer 'muon' does not work with fsdp"):
        TrainingConfig(fsdp=True, optimizer="muon")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A GPU that computes in bfloat16, as far as options are settled by it."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr("ddpm_pipeline.training.resolving.compiles_for_cuda", lambda: True)
    return torch.device("cuda")


FAST = ("mixed_precision", "compile", "channels_last", "deterministic")


def settled(device: torch.device, **options: object) -> tuple[object, ...]:
    config = TrainingConfig(max_train_steps=10, **options)
    config = resolve(config, length=None, world_size=1, device=device)
    assert resolve(config, length=None, world_size=1, device=device) == config
    return tuple(getattr(config, name) for name in FAST)


def test_cuda_trains_compiled_in_bfloat16_and_deterministically(cuda: torch.device) -> None:
    assert settled(cuda) == ("bf16", True, True, True)
    # Each can be turned off; without compile the memory order stays plain, unless asked for.
    assert settled(cuda, mixed_precision="no") == ("no", True, True, True)
    assert settled(cuda, compile=False) == ("bf16", False, False, True)
    assert settled(cuda, compile=False, channels_last=True) == ("bf16", False, True, True)
    assert settled(cuda, channels_last=False) == ("bf16", True, False, True)
    assert settled(cuda, deterministic=False) == ("bf16", True, True, False)
    assert settled(cuda, fsdp=True) == ("bf16", False, False, True)


def test_cuda_without_triton_is_not_compiled_for(
    cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpm_pipeline.training.resolving.compiles_for_cuda", lambda: False)
    assert settled(cuda) == ("bf16", False, False, True)


def test_cpus_and_other_devices_keep_their_defaults() -> None:
    for device in ("cpu", "mps"):
        assert settled(torch.device(device), mixed_precision="no") == ("no", False, False, False)


def test_a_run_keeps_what_was_settled_for_it(tmp_path: Path) -> None:
    """A run that began with the defaults of its device goes on with them on another."""
    config = tiny_config(tmp_path, max_train_steps=4)
    train(config.replace(channels_last=True))
    train(config.replace(max_train_steps=6))
    saved = TrainingConfig.from_json(tmp_path / "run" / "training_config.json")
    assert (saved.channels_last, saved.compile, saved.max_train_steps) == (True, False, 6)
