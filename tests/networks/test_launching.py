"""Who shards its weights: by option, by launcher, and who cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate.utils import DistributedType
from helpers.training_runs import run_forked, tiny_config

from ddpm_pipeline.networks.launching import is_sharded_run
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.run import train

pytestmark = pytest.mark.usefixtures("random_last_layers")


class Launched:
    """What an Accelerator says of how it was launched."""

    def __init__(self, kind: str, num_processes: int = 2) -> None:
        self.distributed_type, self.num_processes = DistributedType(kind), num_processes
        self.is_main_process = True


def test_accelerates_launcher_may_ask_for_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    config = tiny_config(tmp_path, max_train_steps=1)
    assert run_forked(config, processes=2) == [0, 0]
    assert TrainingConfig.from_json(tmp_path / "run" / "training_config.json").fsdp


def test_accelerates_fsdp_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_sharded_run(Launched("FSDP"), asked=False)
    assert is_sharded_run(Launched("MULTI_GPU"), asked=True)
    assert not is_sharded_run(Launched("MULTI_CPU"), asked=False)
    assert not is_sharded_run(Launched("NO", 1), asked=False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert is_sharded_run(Launched("MULTI_CPU"), asked=False)


@pytest.mark.parametrize("kind", ["DEEPSPEED", "MEGATRON_LM", "XLA"])
def test_other_ways_to_cut_a_network_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} is not supported; launch with .* add --fsdp"):
        is_sharded_run(Launched(kind), asked=False)


def test_one_process_has_nobody_to_share_with(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fsdp needs more than one process .* got 1"):
        train(tiny_config(tmp_path, fsdp=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("other", ["compile", "channels_last"])
def test_what_does_not_work_with_shards_is_refused(other: str) -> None:
    with pytest.raises(ValueError, match=f"{other} does not work with fsdp"):
        TrainingConfig(fsdp=True, **{other: True})
