"""Averages made of a run's snapshots, against sums over all the weights that the run had."""

from __future__ import annotations

import json
import logging
import shutil
import signal
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from diffusers import DDPMPipeline as StockPipeline
from helpers.training_runs import assert_same, outcome, run_forked, tiny_config
from safetensors.torch import load_file
from torch import Tensor

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.cards import renew_card
from ddpm_pipeline.training import averaged_model, save_average
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.forecast import DryRun
from ddpm_pipeline.training.learner import Learner
from ddpm_pipeline.training.lengths import gamma_of
from ddpm_pipeline.training.run import dry_run, train
from ddpm_pipeline.training.storage.snapshots import read_snapshots

pytestmark = pytest.mark.usefixtures("random_last_layers")

STEPS, EVERY = 24, 3


def config_of(folder: Path, **options: object) -> TrainingConfig:
    defaults = {
        "max_train_steps": STEPS,
        "checkpointing_steps": 0,
        "post_hoc_steps": EVERY,
        "save_images_steps": 0,
        "learning_rate": 1e-2,
    }
    return tiny_config(folder, **{**defaults, **options})


@pytest.fixture(scope="module")
def run(random_last_layers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run beside which its weights after every update are kept."""
    folder, kept = tmp_path_factory.mktemp("run"), []

    def update(learner: Learner, *args: object) -> tuple[Tensor, Tensor]:
        told = original(learner, *args)
        kept.append(flat(learner.unet.state_dict()))
        return told

    original = Learner.update
    with patch.object(Learner, "update", update):
        train(config_of(folder))
    torch.save(torch.stack(kept), folder / "weights.pt")
    return folder / "run"


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """The run's snapshots, to be changed."""
    shutil.copytree(run / "post-hoc", tmp_path / "run" / "post-hoc")
    shutil.copy(run / "training_config.json", tmp_path / "run")
    return tmp_path / "run"


def direct(run: Path, sigma_rel: float, step: int) -> Tensor:
    """The sum of all weights up to a step, each as often as the profile's integral says."""
    edges = torch.linspace(0, 1, step + 1, dtype=torch.float64) ** (gamma_of(sigma_rel) + 1)
    return edges.diff() @ torch.load(run.parent / "weights.pt")[:step]


def flat(state: dict[str, Tensor]) -> Tensor:
    return torch.cat([state[name].flatten().double() for name in sorted(state)])


def weights(pipeline: DDPMPipeline) -> Tensor:
    return flat(pipeline.unet.state_dict())


@pytest.mark.parametrize("step", [3, 12, 24])
@pytest.mark.parametrize("sigma_rel", [0.05, 0.1])
def test_a_stored_average_comes_back(run: Path, sigma_rel: float, step: int) -> None:
    found = weights(averaged_model(run, sigma_rel, step).pipeline)
    stored = load_file(run / f"post-hoc/step-{step:07d}.safetensors")
    stored = {
        k.removeprefix(f"{sigma_rel}:"): v for k, v in stored.items() if f"{sigma_rel}:" in k
    }
    assert (found - flat(stored)).norm() <= 1e-6 * found.norm()
    expected = direct(run, sigma_rel, step)
    assert (found - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("step", [None, 23, 14])
@pytest.mark.parametrize("sigma_rel", [0.03, 0.07, 0.15, 0.2, 0.25])
def test_any_other_comes_near_to_what_it_would_have_been(
    run: Path, sigma_rel: float, step: int | None
) -> None:
    """As near as its profile, at most, of how far the weights moved; at any step.

    Between two snapshots no profile ends, and that of the average, which does, is far from all.
    """
    found, end = averaged_model(run, sigma_rel, step), step or STEPS
    expected = direct(run, sigma_rel, end)
    moved = direct(run, 1e-3, end) - direct(run, 0.28, end)
    assert found.step == end
    assert (weights(found.pipeline) - expected).norm() <= found.error * moved.norm()
    assert found.error < (0.2 if step is None else 0.8)


def test_a_saved_average_is_a_model_like_the_runs(run: Path, tmp_path: Path) -> None:
    found = save_average(run, tmp_path / "model", 0.15, 20)
    stock = StockPipeline.from_pretrained(tmp_path / "model")
    assert torch.equal(flat(stock.unet.state_dict()), weights(found.pipeline))
    for name in ("unet/config.json", "scheduler/scheduler_config.json", "training_config.json"):
        assert json.loads((tmp_path / "model" / name).read_text()) == json.loads(
            (run / name).read_text()
        )
    assert json.loads((tmp_path / "model/average.json").read_text()) == {
        "sigma_rel": 0.15,
        "gamma": pytest.approx(3.5579, abs=1e-4),
        "step": 20,
        "profile_error": pytest.approx(found.error),
        "num_snapshots": 7,
    }
    record = json.loads((tmp_path / "model/training_record.json").read_text())
    assert (record["steps"], record.keys() & {"kept", "distances"}) == (STEPS, set())
    card = renew_card(tmp_path / "model", repo_id="alice/average")
    assert "the average of σ\\_rel = 0.15 at update 20" in card
    assert str(found).endswith(f"7 snapshots, its profile within {100 * found.error:.2g}%")
    with pytest.raises(FileExistsError, match=r"output_dir .* is not empty; choose a new folder"):
        save_average(run, tmp_path / "model", 0.15)


def test_a_short_average_of_few_snapshots_is_warned_about(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        averaged_model(run, 0.005)
    assert "sigma_rel 0.005 at update 24 to" in caplog.text
    caplog.clear()
    averaged_model(run, 0.07)
    assert not caplog.records


def test_mistakes_are_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sigma_rel must be above 0 and at most 0\.2887"):
        averaged_model(run, 0.4)
    with pytest.raises(ValueError, match="step must be at most 24, of the last snapshot, got 25"):
        averaged_model(run, 0.1, 25)
    with pytest.raises(ValueError, match="step must be an integer of at least 1, got 0"):
        averaged_model(run, 0.1, 0)
    with pytest.raises(
        FileNotFoundError, match=r"no snapshots of averages in .* --post_hoc_steps"
    ):
        averaged_model(tmp_path, 0.1)


def test_a_damaged_snapshot_is_named(copied: Path) -> None:
    path = copied / "post-hoc/step-0000009.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"step-0000009\.safetensors' is damaged; delete it"):
        averaged_model(copied, 0.1)
    path.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"step-0000009\.safetensors' is damaged; delete it"):
        averaged_model(copied, 0.1)
    path.unlink()
    assert averaged_model(copied, 0.1).num_snapshots == 7


def test_snapshots_of_another_network_are_not_mixed_in(copied: Path, tmp_path: Path) -> None:
    other = tiny_config(tmp_path / "other", max_train_steps=2, post_hoc_steps=1)
    unet = json.loads((tmp_path / "other/unet.json").read_text())
    (tmp_path / "other/unet.json").write_text(json.dumps({**unet, "block_out_channels": [8, 8]}))
    train(other)
    shutil.copy(tmp_path / "other/run/post-hoc/step-0000002.safetensors", copied / "post-hoc")
    with pytest.raises(ValueError, match="holds averages of another network than"):
        averaged_model(copied, 0.1)


# The run.


def snapshots(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "post-hoc").glob("step-*")}


def test_a_kill_changes_no_bit(tmp_path: Path) -> None:
    options = {"checkpointing_steps": 4, "max_train_steps": 9}
    whole, config = (config_of(tmp_path / name, **options) for name in ("whole", "killed"))
    train(whole)
    run = Path(config.output_dir)
    (last,) = run_forked(config, (run / "post-hoc/step-0000006.safetensors").exists)
    assert last == -signal.SIGKILL
    assert len(snapshots(run)) < len(snapshots(Path(whole.output_dir)))
    train(config)
    assert_same(outcome(run), outcome(Path(whole.output_dir)))
    assert snapshots(run) == snapshots(Path(whole.output_dir))


def test_the_last_update_is_in_a_snapshot_and_one_of_two_processes_writes(tmp_path: Path) -> None:
    config = config_of(tmp_path, max_train_steps=5)
    assert run_forked(config, processes=2) == [0, 0]
    assert [s.step for s in read_snapshots(tmp_path / "run/post-hoc")] == [3, 5]


def test_a_longer_run_sets_aside_what_the_shorter_ones_cooldown_made(tmp_path: Path) -> None:
    config = config_of(tmp_path, max_train_steps=6, checkpointing_steps=4)
    train(config)
    train(config.replace(max_train_steps=9))
    train(config_of(tmp_path / "whole", max_train_steps=9, checkpointing_steps=4))
    assert snapshots(tmp_path / "run") == snapshots(tmp_path / "whole/run")
    assert (tmp_path / "run/shorter-run/step-0000006.safetensors").exists()


def test_snapshots_change_nothing_else_and_are_deleted_with_the_run(tmp_path: Path) -> None:
    options = {"max_train_steps": 4, "checkpointing_steps": 4}
    config = config_of(tmp_path, **options)
    train(config)
    plain = config_of(tmp_path / "plain", post_hoc_steps=0, **options)
    train(plain)
    with_them, without = (outcome(Path(c.output_dir)) for c in (config, plain))
    more = [name for name in with_them["tensors"] if name.startswith("post-hoc-")]
    assert {name.partition("/")[0] for name in more} == {"post-hoc-0.05", "post-hoc-0.1"}
    for name in more:
        del with_them["tensors"][name]
    assert_same(with_them, without)
    (tmp_path / "run/post-hoc/mine.txt").write_text("mine")
    train(config.replace(overwrite_output_dir=True, max_train_steps=3, post_hoc_steps=2))
    names = sorted(path.name for path in (tmp_path / "run/post-hoc").iterdir())
    assert names == ["mine.txt", "step-0000002.safetensors", "step-0000003.safetensors"]


def test_what_is_not_trained_is_in_no_average_otherwise(run: Path, tmp_path: Path) -> None:
    options = {"pretrained_model_name_or_path": str(run), "train_only": "decoder"}
    config = config_of(tmp_path, max_train_steps=6, model_config_name_or_path=None, **options)
    train(config)
    found = averaged_model(tmp_path / "run", 0.2).pipeline.unet.state_dict()
    before = DDPMPipeline.from_pretrained(run).unet.state_dict()
    frozen = [name for name in found if name.startswith("down_blocks.")]
    assert all(torch.equal(found[name], before[name]) for name in frozen)
    assert not torch.equal(found["conv_out.weight"], before["conv_out.weight"])


def test_a_run_without_averages_does_not_go_on_with_them(tmp_path: Path) -> None:
    config = config_of(tmp_path, post_hoc_steps=0)
    train(config, should_stop=lambda step: step == 4)
    with pytest.raises(ValueError, match="post_hoc_steps: 0 → 3"):
        train(config.replace(post_hoc_steps=3))


@pytest.mark.parametrize("lengths", [(), (0.05, 0.05), (0.0,), (0.3,), (float("nan"),)])
def test_lengths_that_are_none_are_refused(lengths: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="post_hoc_sigma_rels must be one or several different"):
        TrainingConfig(post_hoc_steps=1, post_hoc_sigma_rels=lengths)


def test_a_dry_run_counts_averages_and_files(tmp_path: Path) -> None:
    def told(**options: object) -> DryRun:
        return dry_run(config_of(tmp_path, **options), measure=False)

    plain, found = told(post_hoc_steps=0), told(post_hoc_steps=5)
    count = found.num_parameters
    assert found.memory["averages"] == plain.memory["averages"] + 2 * 4 * count
    assert "post-hoc" not in str(plain)
    size = 5 * 2 * 4 * count / 2**20
    assert f"post-hoc averages  5 snapshots, {size:,.1f} MiB of disk" in str(found)
