"""What a run is said to need, before it runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from helpers.paths import DOCS
from helpers.training_runs import TINY_UNET, image_data, tiny_config

from ddpm_pipeline.networks.unets import unet_config
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.data import TrainingData, data_from_images
from ddpm_pipeline.training.forecast import _FusedAttention, describe_run
from ddpm_pipeline.training.run import dry_run

PAGE = DOCS / "scaling.md"


def colour_data() -> TrainingData:
    data = data_from_images(TrainingConfig(), image_data())
    return dataclasses.replace(data, channels=3)


def rows_of_the_page() -> list[list[str]]:
    """Cells of the table: size, resolution, parameters, MiB, GFLOPs, A in float32 and in bf16."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    rows = [[cell.strip().replace(",", "") for cell in line.split("|")[1:-1]] for line in lines]
    return [row for row in rows if row[0] in {"small", "base", "ddpm", "adm"} and len(row) == 7]


@pytest.mark.parametrize("row", rows_of_the_page(), ids=lambda row: "-".join(row[:2]))
def test_the_page_of_scaling_has_the_numbers_of_dry_runs(row: list[str]) -> None:
    size, resolution, *written = row
    config = TrainingConfig(
        model_size=size,
        resolution=int(resolution),
        train_batch_size=1,
        mixed_precision="bf16",
        max_train_steps=1,
        optimizer="adamw",
    )
    numbers = describe_run(config, colour_data(), 1)
    memory = {name: value / 2**20 for name, value in numbers.memory.items()}
    activations = memory.pop("activations")
    expected = [
        numbers.num_parameters,
        sum(memory.values()),
        numbers.flops_per_image / 1e9,
        2 * activations,
        activations,
    ]
    for text, value in zip(written, expected, strict=True):
        decimals = len(text.partition(".")[2])
        assert float(text) == pytest.approx(value, abs=0.51 * 10**-decimals)


def test_the_page_has_every_size_at_every_resolution() -> None:
    assert len(rows_of_the_page()) == 12


@pytest.mark.parametrize("resolution", [64, 128])
def test_the_operations_of_adm_are_those_of_its_layers(resolution: int) -> None:
    """Counted layer by layer: a backward pass takes twice what the forward pass does."""
    config = TrainingConfig(model_size="adm", resolution=resolution, max_train_steps=1)
    with torch.device("meta"):
        unet = UNet2DModel(**unet_config("adm", resolution=resolution, channels=3))
        operations = []

        def note(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            if isinstance(module, torch.nn.Conv2d):
                operations.append(2 * module.weight.numel() * output[0, 0].numel())
            elif isinstance(module, torch.nn.Linear):
                places = output.numel() // module.out_features
                operations.append(2 * module.weight.numel() * places)
            else:  # queries with keys, and weights with values
                channels, places = inputs[0].shape[1], inputs[0][0, 0].numel()
                operations.append(4 * channels * places**2)

        for module in unet.modules():
            is_attention = type(module).__name__ == "Attention"
            if is_attention or isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.register_forward_hook(note)
        unet(torch.empty(1, 3, resolution, resolution), torch.zeros(1))
    counted = describe_run(config, colour_data(), 1).flops_per_image
    assert counted == pytest.approx(3 * sum(operations), rel=0.01)


def test_a_dry_run_knows_that_muon_has_one_average(tmp_path: Path) -> None:
    muon, adamw = (
        dry_run(tiny_config(tmp_path, optimizer=name)).memory["optimizer"]
        for name in ("muon", "adamw")
    )
    assert 0.5 < muon / adamw < 0.75


def test_a_dry_run_knows_of_recomputation_and_half_precision(tmp_path: Path) -> None:
    plain, recomputing, half = (
        dry_run(tiny_config(tmp_path, **options))
        for options in ({}, {"gradient_checkpointing": True}, {"mixed_precision": "bf16"})
    )
    assert recomputing.memory["activations"] < 0.8 * plain.memory["activations"]
    # A forward pass more for most of the network, where there were one and two of backward.
    assert 1.1 < recomputing.flops_per_image / plain.flops_per_image < 4 / 3
    assert half.memory["activations"] == plain.memory["activations"] / 2
    assert half.memory["casts"] == 2 * half.num_parameters
    assert plain.memory["casts"] == recomputing.memory["casts"] == 0


def saved_by_a_forward_pass(unet: UNet2DModel, *shape: int) -> int:
    """Bytes that a real forward pass saves for the backward pass, each storage once."""
    saved: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in unet.parameters()}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _output = unet(torch.zeros(shape), torch.zeros(shape[0], dtype=torch.int64))
    return sum(size for pointer, size in saved.items() if pointer not in weights)


def test_a_dry_run_counts_what_the_backward_pass_holds(tmp_path: Path) -> None:
    expected = saved_by_a_forward_pass(UNet2DModel(**TINY_UNET), 4, 1, 8, 8)
    numbers = dry_run(tiny_config(tmp_path)).memory["activations"]
    assert numbers == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("size", "resolution"),
    [("small", 64), ("base", 32), pytest.param("adm", 64, marks=pytest.mark.slow)],
)
def test_attention_is_counted_as_it_is_kept(size: str, resolution: int) -> None:
    with torch.device("meta"):
        unet = UNet2DModel(**unet_config(size, resolution=resolution, channels=3))
    unet.to_empty(device="cpu").train()
    for parameter in unet.parameters():
        torch.nn.init.zeros_(parameter)
    expected = saved_by_a_forward_pass(unet, 1, 3, resolution, resolution)
    config = TrainingConfig(
        model_size=size,
        resolution=resolution,
        train_batch_size=1,
        mixed_precision="no",
        max_train_steps=1,
        optimizer="adamw",
    )
    numbers = describe_run(config, colour_data(), 1).memory["activations"]
    assert numbers == pytest.approx(expected, rel=0.03)


def test_attention_with_a_mask_is_counted_with_its_weights() -> None:
    q = torch.empty(1, 2, 64, 8, device="meta", requires_grad=True)
    masks = {"plain": None, "masked": torch.zeros(64, 64, device="meta")}
    largest = {}
    for name, mask in masks.items():
        sizes = []
        note = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor, lambda t: t
        )
        with _FusedAttention(), note:
            torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)
        largest[name] = max(sizes)
    assert largest == {"plain": 2 * 64 * 8, "masked": 2 * 64 * 64}
