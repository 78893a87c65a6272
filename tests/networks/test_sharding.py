"""Training with sharded weights: the same run as with whole ones, on two real processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from diffusers import DDPMPipeline as StockPipeline
from helpers.device_counts import DEVICE, DeviceCounts, stand_in_device
from helpers.processes import exit_codes, fork_ranks
from helpers.training_runs import assert_same, outcome, run_forked, tiny_config

from ddpm_pipeline.networks import sharding
from ddpm_pipeline.networks.sharding import (
    gathered,
    joined,
    like,
    own_part,
    shard,
    whole,
)
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.data import open_training_data
from ddpm_pipeline.training.forecast import describe_run
from ddpm_pipeline.training.run import train

pytestmark = pytest.mark.usefixtures("random_last_layers")

# One batch, one image and one row too few for two, so that a process has nothing to do at times.
UNEVEN = {
    "max_train_steps": 6,
    "checkpointing_steps": 2,
    "train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "validation_size": 5.0,
    "eval_batch_size": 1,
    "validate_bound_steps": 4,
    "validate_bound_images": 1,
    "ema_decay": (0.5, 0.9),
    "validation_steps": 5,
    "optimizer": "adamw",  # as sharded weights have it
    # The gradient of some biases is zero but for rounding, which AdamW should not amplify.
    "adam_epsilon": 1e-3,
}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(tmp_path_factory.mktemp("sharded"), fsdp=True, **UNEVEN)
    assert run_forked(config, processes=2) == [0, 0]
    return Path(config.output_dir)


def test_sharded_training_is_training(tmp_path: Path, sharded: Path) -> None:
    """Losses, norms, bits/dim, weights, averages and optimiser are those of DDP's processes."""
    config = tiny_config(tmp_path, **UNEVEN)
    assert run_forked(config, processes=2) == [0, 0]
    a, b = outcome(sharded), outcome(tmp_path / "run")
    assert [entry.keys() for entry in a["metrics"]] == [entry.keys() for entry in b["metrics"]]
    assert any("bound_bits_per_dim" in entry for entry in a["metrics"])
    for mine, ddp in zip(a["metrics"], b["metrics"], strict=True):
        assert mine == pytest.approx(ddp, rel=1e-5, nan_ok=True)
    for group in ("tensors", "model"):
        torch.testing.assert_close(a[group], b[group], rtol=1e-4, atol=1e-6)
    assert a["samples"].keys() == b["samples"].keys()


def test_shards_go_with_half_precision_and_recomputation(tmp_path: Path) -> None:
    """The loss is the same to the bit, the gradients to what bf16 rounds."""
    options = {"mixed_precision": "bf16", "gradient_checkpointing": True, "logging_steps": 1}
    logged = []
    for name, fsdp in [("a", False), ("b", True)]:
        config = tiny_config(tmp_path / name, fsdp=fsdp, max_train_steps=1, **options)
        assert run_forked(config, processes=2) == [0, 0]
        logged.append(outcome(tmp_path / name / "run")["metrics"][0])
    a, b = logged
    assert a["loss"] == b["loss"]
    assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-2)


def test_a_sharded_run_leaves_a_plain_model(sharded: Path) -> None:
    unet = StockPipeline.from_pretrained(sharded).unet
    assert type(unet).__name__ == "UNet2DModel"
    assert json.loads((sharded / "training_config.json").read_text())["fsdp"] is True
    saved = outcome(sharded)
    for name, parameter in unet.named_parameters():
        assert saved["tensors"][f"optimizer/{name}.exp_avg"].shape == parameter.shape
        assert saved["tensors"][f"average-0.5/{name}"].shape == parameter.shape


@pytest.mark.slow
def test_a_sharded_run_killed_and_resumed_ends_with_the_same_bits(
    tmp_path: Path, sharded: Path
) -> None:
    config = tiny_config(tmp_path, fsdp=True, **UNEVEN)
    run = Path(config.output_dir)
    codes = run_forked(config, (run / "checkpoints/step-0000002").exists, processes=2)
    assert codes == [-signal.SIGKILL] * 2
    assert not (run / "model_index.json").exists()
    assert run_forked(config, processes=2) == [0, 0]
    assert_same(outcome(run), outcome(sharded))


def test_a_sharded_run_does_not_go_on_as_another(sharded: Path, tmp_path: Path) -> None:
    config = TrainingConfig.from_json(sharded / "training_config.json")
    images = str(sharded.parent / "images.npy")
    again = config.replace(fsdp=False, output_dir=str(sharded), train_data_dir=images)
    again = again.replace(model_config_name_or_path=str(sharded.parent / "unet.json"))
    with pytest.raises(ValueError, match="fsdp: True → False"):
        train(again.replace(cache_dir=str(tmp_path)))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_dry_run_knows_what_each_process_keeps(tmp_path: Path, accumulation: int) -> None:
    config = tiny_config(tmp_path, gradient_accumulation_steps=accumulation, ema_decay=(0.5, 0.9))
    data = open_training_data(config)
    alone = describe_run(config, data, 4).memory
    shared = describe_run(config.replace(fsdp=True), data, 4).memory
    for name in ("weights", "optimizer", "averages"):
        assert shared[name] == pytest.approx(alone[name] / 4, rel=1e-3)
    share = 4 if accumulation == 1 else 1
    assert shared["gradients"] == pytest.approx(alone["gradients"] / share, rel=1e-3)
    assert shared["activations"] == alone["activations"]


# The parts.


def on_two_processes(check: object) -> None:
    def run() -> None:
        torch.set_num_threads(1)
        check(Accelerator(cpu=True))

    assert exit_codes(fork_ranks(run, 2)) == [0, 0]


def a_unet() -> torch.nn.Module:
    from diffusers import UNet2DModel
    from helpers.training_runs import TINY_UNET

    torch.manual_seed(0)
    return UNet2DModel(**{**TINY_UNET, "dropout": 0.0})


def test_shards_are_put_together_and_cut_again() -> None:
    def check(accelerator: Accelerator) -> None:
        before = {k: v.clone() for k, v in a_unet().state_dict().items()}
        unet = a_unet()
        shard(unet)
        parameters = dict(unet.named_parameters())
        after = gathered(unet.state_dict(), keep=True)
        assert all(torch.equal(after[k], v) for k, v in before.items())
        assert gathered(unet.state_dict(), keep=False) == {}
        count = sum(v.numel() for v in before.values())
        own = sum(own_part(p).numel() for p in parameters.values())
        # A tensor with an odd first dimension cannot be cut evenly.
        assert own == pytest.approx(count / 2, rel=0.05)
        for name, parameter in parameters.items():
            part = own_part(like(parameter, before[name]))
            assert torch.equal(part, own_part(parameter))
            assert torch.equal(whole(joined(parameter, part)), before[name])
        with torch.no_grad():
            own_part(parameters["conv_in.bias"]).fill_(accelerator.process_index)
        assert whole(parameters["conv_in.bias"]).tolist() == [0, 0, 1, 1]

    on_two_processes(check)


def test_an_evaluation_leaves_no_whole_weights_behind() -> None:
    """Else the update after a validation would compute with the average that was validated."""

    def check(_: Accelerator) -> None:
        unet, x, t = a_unet(), torch.ones(1, 1, 8, 8), torch.tensor([3])
        shard(unet)
        parameters = list(unet.parameters())
        with torch.no_grad():
            before = unet(x, t)[0].clone()
            for parameter in parameters:
                own_part(parameter).zero_()
            assert unet(x, t)[0].abs().max() == 0
            assert before.abs().max() > 0

    on_two_processes(check)


def test_an_overflow_on_one_process_is_an_overflow_on_all() -> None:
    """The loss scale of fp16 must not differ between processes."""

    def check(accelerator: Accelerator) -> None:
        unet = a_unet()
        shard(unet)
        optimizer = torch.optim.AdamW(unet.parameters(), fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        bias = dict(unet.named_parameters())["conv_in.bias"]
        before = whole(bias.detach()).clone()
        loss = unet(torch.ones(1, 1, 8, 8), torch.tensor([3]))[0].sum()
        scaler.scale(loss).backward()
        if accelerator.process_index == 1:
            own_part(bias.grad).fill_(torch.inf)
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(whole(bias.detach()), before)
        assert scaler.get_scale() == 2.0

    on_two_processes(check)


def test_plain_tensors_are_left_alone() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    assert own_part(weight) is weight
    assert joined(weight, weight) is like(weight, weight) is whole(weight) is weight
    assert gathered({"w": weight}, keep=True)["w"] is weight


class OnDevice:
    """Shards of a tensor on a device that is not the host's."""

    def full_tensor(self) -> torch.Tensor:
        return torch.zeros(3, device=DEVICE)


def test_shards_are_copied_once_on_their_way_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "DTensor", OnDevice)
    step, tensors = torch.zeros(()), {"weight": OnDevice()}
    with stand_in_device(), DeviceCounts("cpu") as host, DeviceCounts():
        found = gathered({**tensors, "step": step}, keep=True, copied=True)
    assert found["weight"].device.type == "cpu"
    assert host.kernels["clone"] == 1  # of what is on the host, and changes there
    assert found["step"] is not step
