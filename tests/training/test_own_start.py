"""Runs of networks that the caller makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.training_runs import tiny_config
from helpers.unets import make_tiny_unet
from safetensors.torch import load_file

from ddpm_pipeline import DDPMPipeline, TrainingConfig
from ddpm_pipeline.training.run import train
from ddpm_pipeline.training.storage.export import open_checkpoint


class Plain(torch.nn.Module):
    """A network that is no model of diffusers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.layer(x_t) * (1 + t.view(-1, 1, 1, 1) / 20)


def a_config(folder: Path, **options: object) -> TrainingConfig:
    config = tiny_config(folder, model_config_name_or_path=None, **options)
    return config.replace(max_train_steps=4, checkpointing_steps=2)


def test_a_unet_of_ones_own_is_trained_in_place_and_saved(tmp_path: Path) -> None:
    unet = make_tiny_unet(1)
    before = unet.conv_out.weight.detach().clone()
    assert train(a_config(tmp_path), unet=unet).finished
    assert not torch.equal(unet.conv_out.weight, before)
    saved = DDPMPipeline.from_pretrained(tmp_path / "run").unet
    assert list(saved.config.block_out_channels) == list(unet.config.block_out_channels)
    with pytest.raises(ValueError, match="unet has in_channels=3, but training needs 1"):
        train(a_config(tmp_path / "b"), unet=make_tiny_unet(3))


def test_any_module_is_trained_and_its_weights_are_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "ddpm_pipeline"):
        assert train(a_config(tmp_path, use_ema=False), unet=Plain()).finished
    assert "no model of diffusers: its weights are saved as network.safetensors" in caplog.text
    assert not (tmp_path / "run" / "model_index.json").exists()
    weights = load_file(tmp_path / "run" / "network.safetensors")
    Plain().load_state_dict(weights)
    checkpoint = load_file(tmp_path / "run" / "checkpoints" / "step-0000004" / "model.safetensors")
    assert torch.equal(checkpoint["network.layer.weight"], weights["layer.weight"])
    with pytest.raises(ValueError, match="is of a Plain, a network that was given to train"):
        open_checkpoint(tmp_path / "run")


def test_a_run_of_it_goes_on(tmp_path: Path) -> None:
    networks = [Plain() for _ in range(3)]
    for network in networks[1:]:
        network.load_state_dict(networks[0].state_dict())
    train(a_config(tmp_path / "a"), unet=networks[0])
    config = a_config(tmp_path / "b")
    train(config, unet=networks[1], should_stop=lambda step: step == 2)
    torch.nn.init.zeros_(networks[2].layer.weight)  # the checkpoint has the weights
    assert train(config, unet=networks[2]).finished
    file = "checkpoints/step-0000004/model.safetensors"
    a, b = (load_file(tmp_path / name / "run" / file) for name in ("a", "b"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_cannot_be_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"unet must be a torch.nn.Module, got a builtin"):
        train(a_config(tmp_path), unet=print)
    with pytest.raises(ValueError, match="give either unet or model_config_name_or_path, got"):
        train(tiny_config(tmp_path), unet=Plain())
    pushed = a_config(tmp_path, push_to_hub=True, hub_model_id="alice/digits")
    with pytest.raises(ValueError, match="push_to_hub needs a model of diffusers"):
        train(pushed, unet=Plain())
    with pytest.raises(ValueError, match="post_hoc_steps needs a model of diffusers"):
        train(a_config(tmp_path, post_hoc_steps=2), unet=Plain())
    with pytest.raises(ValueError, match=r"layer_decay=0\.5 needs a model of diffusers"):
        train(a_config(tmp_path, layer_decay=0.5), unet=Plain())
    tied = Plain()
    tied.again = tied.layer
    with pytest.raises(ValueError, match=r"layer\.weight and again\.weight share theirs"):
        train(a_config(tmp_path), unet=tied)
    assert not (tmp_path / "run").exists()
    learned = a_config(tmp_path, loss="vlb", variance_type="learned")
    with pytest.raises(ValueError, match="unet has out_channels=1, but training needs 2"):
        train(learned, unet=make_tiny_unet(1))
