"""What models are conditioned on: its encoding, its rows, and what a network is called with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from ddpm_pipeline.networks.condition import (
    Condition,
    blank_inputs,
    image_channels,
    joined_rows,
    network_inputs,
    ready_for,
    told_of,
    told_tensors,
    unconditional,
)
from ddpm_pipeline.networks.conditioned_on import Conditioning, check_asked_condition
from ddpm_pipeline.networks.denoiser import run_denoiser
from ddpm_pipeline.networks.model_facts import ModelFacts, facts_of, set_facts
from ddpm_pipeline.networks.rows import bytes_per_row

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel

NUMBERS = Conditioning(("a", "b"), (0.0, -2.0), (2.0, 6.0), trains_null=True)
PICTURES = Conditioning(channels=2, sides=(4, 4), trains_null=True)
BOTH = Conditioning(("a", "b"), (0.0, -2.0), (2.0, 6.0), 2, (4, 2), "nearest")


def conditioned(tiny_unet: Callable[..., UNet2DModel], wanted: Conditioning) -> UNet2DModel:
    options = {"channels": 1 + wanted.channels, "out_channels": 1}
    if wanted.columns:
        options["class_embed_type"] = "identity"
    unet = tiny_unet(**options)
    set_facts(unet, ModelFacts(conditioning=wanted.to_dict()))
    return unet.eval()


def given(wanted: Conditioning, rows: int = 3) -> Condition:
    generator = torch.Generator().manual_seed(0)
    vector = torch.rand(rows, 2, generator=generator) if wanted.columns else None
    shape = (rows, wanted.channels, *(wanted.sides or ()))
    picture = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return Condition(vector=vector, picture=picture if wanted.channels else None)


def test_the_waves_turn_as_often_as_is_said() -> None:
    width = 50  # 12 waves for each of two numbers, and two zeros
    low, middle, high = NUMBERS.encoded(torch.tensor([[0.0, -2], [0.125, -1.5], [2, 6]]), width)
    cos, sin = low[:48].view(2, 24).unflatten(1, (2, 12)).unbind(1)
    assert (cos == 1).all()
    assert (sin == 0).all()
    cos, sin = high[:48].view(2, 2, 12).unbind(1)
    assert cos[:, 0] == pytest.approx([0, 0], abs=1e-6)  # a quarter of a turn
    assert sin[:, 0] == pytest.approx([1, 1])
    assert cos[:, -1] == pytest.approx([1, 1], abs=1e-4)  # eight whole turns
    cos, sin = middle[:48].view(2, 2, 12).unbind(1)
    assert cos[:, -1] == pytest.approx([-1, -1], abs=1e-4)  # a sixteenth of them: half a turn
    assert (torch.stack([low, middle, high])[:, 48:] == 0).all()


def test_a_vector_is_moved_as_precise_as_a_device_allows() -> None:
    told = Condition(vector=torch.tensor([[1_764_000_001.0]], dtype=torch.float64))
    assert told.to("cpu").vector.item() == 1_764_000_001
    assert told.to("meta").vector.dtype == torch.float64
    labels = Condition(labels=torch.tensor([1])).to(torch.device("cpu")).labels
    assert labels.dtype == torch.int64


def test_no_vector_has_the_embedding_of_none() -> None:
    e = NUMBERS.encoded(torch.linspace(-9, 9, 400).view(200, 2), 32)
    assert e.square().sum(1).sqrt() == pytest.approx([4] * 200)  # √(8 waves of each number)


def test_a_smaller_picture_is_scaled_up_by_the_rule() -> None:
    picture = torch.tensor([[[[0, 255], [255, 0]]]], dtype=torch.uint8)
    x = Conditioning(channels=1, sides=(2, 2), upsampling="nearest").pictured(picture, (4, 4))
    assert torch.equal(x[0, 0], torch.tensor([[-1.0, 1], [1, -1]]).kron(torch.ones(2, 2)))
    smooth = Conditioning(channels=1, sides=(2, 2)).pictured(picture, (4, 4))[0, 0]
    assert torch.allclose(smooth, -smooth.flip(0))
    assert smooth[0, 0] < smooth[1, 1] < 0  # cubic: beyond the ends, and towards the middle
    assert (
        PICTURES.pictured(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16), (16, 16)) != 0
    ).all()  # so that 0 is none


@pytest.mark.parametrize("wanted", [NUMBERS, PICTURES, BOTH])
def test_facts_hold_it_through_json(
    tiny_unet: Callable[..., UNet2DModel], wanted: Conditioning
) -> None:
    unet = conditioned(tiny_unet, wanted)
    assert facts_of(unet).conditioned_on == wanted
    assert image_channels(unet) == image_channels(unet.config) == 1
    assert image_channels(tiny_unet()) == 1


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"columns": ["a"], "low": [0.0], "high": [0.0]},
        {"columns": ["a"], "low": [0.0], "high": [math.inf]},
        {"columns": ["a", "b"], "low": [0.0], "high": [1.0]},
        {"channels": 1},
        {"channels": 1, "sides": [2, 2], "upsampling": "lanczos"},
        {"channels": 1, "sides": [2, 2], "values": {"dtype": "float64"}},
        {"channels": "1", "sides": [2, 2]},
    ],
)
def test_damaged_facts_are_refused(values: dict) -> None:
    with pytest.raises(ValueError, match="is damaged"):
        Conditioning.from_dict(values)


@pytest.mark.parametrize("wanted", [NUMBERS, PICTURES, BOTH])
def test_a_network_sees_the_condition_of_its_row(
    tiny_unet: Callable[..., UNet2DModel], wanted: Conditioning
) -> None:
    unet, told = conditioned(tiny_unet, wanted), given(wanted)
    x_t, t = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(3)
    with torch.no_grad():
        together = run_denoiser(unet, x_t, t, told)
        alone = [
            run_denoiser(unet, x_t[i : i + 1], t[i : i + 1], told[i : i + 1]) for i in range(3)
        ]
        other = run_denoiser(unet, x_t, t, told[torch.tensor([1, 2, 0])])
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    assert (together - other).abs().amax((1, 2, 3)).min() > 1e-6
    ready = ready_for(unet, told, (8, 8))
    assert ready_for(unet, ready, (8, 8)) is ready
    with torch.no_grad():
        assert torch.equal(run_denoiser(unet, x_t, t, ready), together)
        tensors = told_of(told_tensors(ready), unet)
        assert torch.equal(run_denoiser(unet, x_t, t, tensors), together)


@pytest.mark.parametrize("wanted", [NUMBERS, PICTURES])
def test_dropped_rows_are_told_nothing(
    tiny_unet: Callable[..., UNet2DModel], wanted: Conditioning
) -> None:
    unet, told = conditioned(tiny_unet, wanted), given(wanted)
    dropped = ready_for(unet, told.without(torch.tensor([False, True, False])), (8, 8))
    whole = ready_for(unet, told, (8, 8))
    nothing = unconditional(unet, whole)
    for name, part in dropped.parts.items():
        assert torch.equal(part[[0, 2]], whole.parts[name][[0, 2]])
        assert (part[1] == 0).all()
        assert (nothing.parts[name] == 0).all()


def test_the_null_class_is_dropped_too(tiny_unet: Callable[..., UNet2DModel]) -> None:
    unet = tiny_unet(channels=2, out_channels=1, num_class_embeds=4)
    wanted = Conditioning(channels=1, sides=(8, 8))
    set_facts(unet, ModelFacts(conditioning=wanted.to_dict()))
    told = Condition(
        labels=torch.tensor([0, 1]), picture=torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    )
    ready = ready_for(unet, told.without(torch.tensor([True, False])), (8, 8))
    assert ready.labels.tolist() == [3, 1]
    assert unconditional(unet, ready).labels.tolist() == [3, 3]


def test_rows_are_joined_and_repeated_like_tensors() -> None:
    told = given(BOTH)
    joined = joined_rows([told[:1], told[1:]])
    for name, part in told.parts.items():
        assert torch.equal(joined.parts[name], part)
        assert torch.equal(told[1:2].expanded(4).parts[name], part[1:2].repeat_interleave(4, 0))
    assert len(told) == len(joined) == 3
    with pytest.raises(ValueError, match=r"as many images, got {'vector': 2, 'picture': 3}"):
        Condition(vector=torch.zeros(2, 1), picture=torch.zeros(3, 1, 2, 2))


@pytest.mark.parametrize(
    ("wanted", "told", "said"),
    [
        (NUMBERS, None, "condition must be given: the model is conditioned on a 0 … 2, b -2 … 6"),
        (NUMBERS, Condition(vector=torch.zeros(2, 3)), "has 3 numbers, and the model is"),
        (NUMBERS, given(PICTURES, 2), "has no vector, and the model"),
        (PICTURES, Condition(vector=torch.zeros(2, 2)), "has 2 numbers, and the model"),
        (PICTURES, Condition(picture=torch.zeros(2, 2, 8, 8)), r"has images of shape \(2, 8, 8\)"),
        (None, given(NUMBERS, 2), "must be left out: the model is not conditioned on any"),
    ],
)
def test_another_condition_is_refused(
    tiny_unet: Callable[..., UNet2DModel],
    wanted: Conditioning | None,
    told: Condition | None,
    said: str,
) -> None:
    unet = tiny_unet() if wanted is None else conditioned(tiny_unet, wanted)
    with pytest.raises(ValueError, match=said):
        run_denoiser(unet, torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64), told)


@pytest.mark.parametrize("wanted", [NUMBERS, PICTURES, None])
def test_blank_inputs_fit_the_network(
    tiny_unet: Callable[..., UNet2DModel], wanted: Conditioning | None
) -> None:
    unet = tiny_unet() if wanted is None else conditioned(tiny_unet, wanted)
    x, labels = blank_inputs(unet, torch.zeros(2, 1, 8, 8))
    assert unet(x, torch.zeros(2), labels).sample.shape == (2, 1, 8, 8)
    assert bytes_per_row(unet, (1, 8, 8)) > 0


def test_functions_and_plain_modules_are_told_as_before() -> None:
    x_t, labels = torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])
    for network in (lambda x_t, _: x_t, nn.Identity()):
        assert network_inputs(network, x_t, None) == (x_t, None)
        assert network_inputs(network, x_t, labels)[1] is labels
    assert told_of(told_tensors(labels), nn.Identity()) is labels
    assert told_of(told_tensors(None), nn.Identity()) is None


@pytest.mark.parametrize(
    ("wanted", "asked", "said"),
    [
        (NUMBERS, (None, (1.0,)), "condition_numbers must be 2 numbers, got 1"),
        (NUMBERS, (None, None), "condition_numbers must be given"),
        (NUMBERS, ("x/", (1.0, 2.0)), "condition must be left out: the model is conditioned on a"),
        (
            PICTURES,
            (None, None),
            "condition must be given: the model is conditioned on images 4×4",
        ),
        (None, (None, (1.0,)), "condition_numbers must be left out: .* on nothing"),
    ],
)
def test_options_are_held_against_the_model(
    wanted: Conditioning | None, asked: tuple, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        check_asked_condition(wanted, *asked)
