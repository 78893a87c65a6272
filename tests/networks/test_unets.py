"""The UNets that training starts from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from diffusers import UNet2DModel

from ddpm_pipeline.networks.unets import attention_warning, fresh_unet, unet_config
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.resolving import costly_resolution
from ddpm_pipeline.training.setup import make_unet

if TYPE_CHECKING:
    from pathlib import Path


def parameters(size: str, resolution: int, channels: int) -> float:
    with torch.device("meta"):
        unet = UNet2DModel(**unet_config(size, resolution=resolution, channels=channels))
    return sum(p.numel() for p in unet.parameters()) / 1e6


@pytest.mark.parametrize(
    ("size", "resolution", "channels", "millions"),
    [
        ("small", 28, 1, 1.11),
        ("small", 32, 3, 1.11),
        ("small", 64, 3, 3.15),
        ("base", 32, 3, 6.47),
        ("ddpm", 32, 3, 35.7),  # Ho et al. 2020, appendix B
        ("ddpm", 256, 3, 114),
        ("adm", 64, 3, 276.4),
        ("adm", 128, 3, 285.4),
        ("adm", 256, 3, 282.0),
    ],
)
def test_sizes(size: str, resolution: int, channels: int, millions: float) -> None:
    assert parameters(size, resolution, channels) == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("size", ["small", "base"])
@pytest.mark.parametrize("resolution", [4, 8, 12, 14, 16, 20, 28, 32, 33, 48, 64, 96, 100, 256])
def test_every_resolution_comes_out_as_it_went_in(size: str, resolution: int) -> None:
    with torch.device("meta"):
        unet = UNet2DModel(**unet_config(size, resolution=resolution, channels=1))
        x = torch.empty(1, 1, resolution, resolution)
        assert unet(x, torch.empty(1)).sample.shape == x.shape


def test_a_warning_names_the_side_at_which_the_network_attends() -> None:
    warned = 0
    for resolution in range(4, 600):
        levels = len(unet_config("small", resolution=resolution, channels=1)["block_out_channels"])
        side = resolution // 2 ** (levels - 1)
        warning = costly_resolution(TrainingConfig(resolution=resolution))
        assert warning == attention_warning(resolution)
        assert (warning is not None) == (side > 32)
        if warning is not None:
            warned += 1
            assert f"attends at {side} x {side} places" in warning
            other = int(warning.split("that of ")[1].split()[0])
            assert costly_resolution(TrainingConfig(resolution=other)) is None
    assert warned > 100
    assert costly_resolution(TrainingConfig(resolution=64, model_size="ddpm")) is None


def test_a_resolution_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 8 for model_size 'ddpm', got 28"):
        unet_config("ddpm", resolution=28, channels=1)


def test_sides_that_fit_are_named() -> None:
    message = (
        "multiple of 32 for model_size 'ddpm', got 48×80; what fits: 32 or 64 in place of 48, "
        "64 or 96 in place of 80"
    )
    with pytest.raises(ValueError, match=message):
        unet_config("ddpm", resolution=(48, 80), channels=7)
    with pytest.raises(ValueError, match="what fits: 8 in place of 3"):
        unet_config("ddpm", resolution=3, channels=1)


@pytest.mark.parametrize("size", ["small", "base"])
@pytest.mark.parametrize("sides", [(48, 80), (80, 48), (45, 80), (8, 128), (31, 7), (96, 64)])
def test_every_height_and_width_comes_out_as_it_went_in(size: str, sides: tuple[int, int]) -> None:
    with torch.device("meta"):
        config = unet_config(size, resolution=sides, channels=7)
        assert config["sample_size"] == sides
        x = torch.empty(1, 7, *sides)
        assert UNet2DModel(**config)(x, torch.empty(1)).sample.shape == x.shape
    if (warning := attention_warning(sides)) is not None:
        other = tuple(map(int, warning.split("that of ")[1].split()[0].split("×")))
        assert attention_warning(other) is None


def test_classes_have_a_null_class_beside_them() -> None:
    unet = make_unet(TrainingConfig(resolution=8, dropout=0.2), 3, 10)
    assert unet.config.num_class_embeds == 11
    assert unet.config.dropout == 0.2


@pytest.mark.parametrize(("resolution", "largest"), [(64, 32), (128, 32), (256, 32), (32, 16)])
def test_adm_attends_at_three_levels_with_heads_of_64(resolution: int, largest: int) -> None:
    sides, heads = [], []

    def look(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        sides.append(inputs[0].shape[-1])
        heads.append(module.to_q.out_features // module.heads)

    with torch.device("meta"):
        unet = UNet2DModel(**unet_config("adm", resolution=resolution, channels=3))
        for module in unet.modules():
            if type(module).__name__ == "Attention":
                module.register_forward_pre_hook(look)
        x = torch.empty(1, 3, resolution, resolution)
        assert unet(x, torch.empty(1)).sample.shape == x.shape
    assert sorted(set(sides)) == [largest // 4, largest // 2, largest]
    assert set(heads) == {64}


def test_sides_that_adm_cannot_halve_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 16 for model_size 'adm', got 100"):
        unet_config("adm", resolution=100, channels=3)
    assert len(unet_config("adm", resolution=(48, 80), channels=7)["block_out_channels"]) == 5


@pytest.mark.parametrize("size", ["small", "base"])
def test_fresh_networks_of_every_size_predict_zero(size: str) -> None:
    unet = fresh_unet(unet_config(size, resolution=16, channels=1, num_classes=2))
    x, t, labels = torch.randn(2, 1, 16, 16), torch.tensor([1, 900]), torch.tensor([0, 2])
    assert unet(x, t, class_labels=labels).sample.count_nonzero() == 0
    assert unet.conv_in.weight.count_nonzero() > 0


def test_a_fresh_network_is_drawn_from_torchs_generator() -> None:
    config = unet_config("small", resolution=8, channels=1)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(fresh_unet(config).conv_in.weight)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_fresh_network_predicts_zero_and_learns_from_there() -> None:
    unet = make_unet(TrainingConfig(resolution=8), 3, None)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 900])
    assert unet(x, t).sample.count_nonzero() == 0
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3)
    for _ in range(3):  # conv_out learns first, then the last layers of branches, then all
        optimizer.zero_grad()
        (unet(x, t).sample - x).square().mean().backward()
        optimizer.step()
    still = [name for name, p in unet.named_parameters() if p.grad.count_nonzero() == 0]
    assert still == []


def test_residual_branches_start_at_nothing() -> None:
    unet = make_unet(TrainingConfig(resolution=8, dropout=0.5), 3, None)
    block, attention = unet.mid_block.resnets[0], unet.mid_block.attentions[0]
    x, embedded = torch.randn(2, 64, 4, 4), torch.randn(2, 128)
    assert torch.equal(block(x, embedded), x)
    assert torch.equal(attention(x), x)


def test_a_config_file_a_model_folder_and_a_component_folder_are_read(tmp_path: Path) -> None:
    config = unet_config("small", resolution=8, channels=1)
    unet = UNet2DModel(**config)
    unet.save_pretrained(tmp_path / "model" / "unet")
    unet.save_pretrained(tmp_path / "bare")
    (tmp_path / "unet.json").write_text(json.dumps(config))
    for name in ("unet.json", "model", "bare"):
        read = make_unet(
            TrainingConfig(resolution=8, model_config_name_or_path=str(tmp_path / name)), 1, None
        )
        assert tuple(read.config.block_out_channels) == (32, 64)
    with pytest.raises(ValueError, match="in_channels=1, but training needs 3"):
        make_unet(
            TrainingConfig(resolution=8, model_config_name_or_path=str(tmp_path / "bare")), 3, None
        )
