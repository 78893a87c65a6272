"""Rules on the weights of a trained U-Net."""

from __future__ import annotations

import pytest
import torch
from helpers.unets import make_tiny_unet

from ddpm_pipeline.diffusion import NoiseSchedule
from ddpm_pipeline.diffusion.reverse_process import reverse
from ddpm_pipeline.networks import Conditioning, ModelFacts, adapted_unet, set_facts

T = torch.tensor([3, 700])


def grey_noise(channels: int = 1) -> torch.Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).repeat(
        1, channels, 1, 1
    )


@torch.no_grad()
def test_colour_images_of_like_channels_are_grey_ones() -> None:
    grey = make_tiny_unet(1)
    colour, changed = adapted_unet(grey, channels=3)
    wanted = grey(grey_noise(), T).sample
    torch.testing.assert_close(colour(grey_noise(3), T).sample, wanted.repeat(1, 3, 1, 1))
    assert changed == {"conv_in.weight", "conv_out.weight", "conv_out.bias"}
    assert (colour.config.in_channels, colour.config.out_channels) == (3, 3)

    again, _ = adapted_unet(colour, channels=1)
    torch.testing.assert_close(again(grey_noise(), T).sample, wanted)
    of_colour = make_tiny_unet(3)
    made, _ = adapted_unet(of_colour, channels=1)
    mean = of_colour(grey_noise(3), T).sample.mean(1, keepdim=True)
    torch.testing.assert_close(made(grey_noise(), T).sample, mean)


@torch.no_grad()
def test_learned_variances_keep_their_halves_in_other_channels() -> None:
    grey = make_tiny_unet(1, out_channels=2)
    colour, _ = adapted_unet(grey, channels=3)
    mean, variance = grey(grey_noise(), T).sample.chunk(2, 1)
    both = colour(grey_noise(3), T).sample
    torch.testing.assert_close(both[:, :3], mean.repeat(1, 3, 1, 1))
    torch.testing.assert_close(both[:, 3:], variance.repeat(1, 3, 1, 1))


@torch.no_grad()
@pytest.mark.parametrize(("fixed", "output"), [("fixed_small", -1.0), ("fixed_large", 1.0)])
@pytest.mark.parametrize(("t", "s"), [(0, -1), (1, 0), (500, 499), (999, 300)])
def test_a_learned_variance_begins_as_the_fixed_one(
    fixed: str, output: float, t: int, s: int
) -> None:
    unet = make_tiny_unet(1)
    learned, changed = adapted_unet(unet, variance_output=output)
    assert changed == {"conv_out.weight", "conv_out.bias"}
    schedule, x_t, at = NoiseSchedule.linear(), grey_noise(), torch.tensor([t, t])
    wanted = reverse(schedule, unet(x_t, at).sample, x_t, t, s, variance_type=fixed)
    found = reverse(schedule, learned(x_t, at).sample, x_t, t, s, variance_type="learned_range")
    torch.testing.assert_close(found.mean, wanted.mean)
    torch.testing.assert_close(
        found.log_var, torch.as_tensor(wanted.log_var).to(x_t).expand_as(x_t)
    )


@torch.no_grad()
def test_classes_keep_their_embeddings_and_new_ones_are_like_them() -> None:
    unet = make_tiny_unet(1, num_class_embeds=3)
    rows = unet.class_embedding.weight
    torch.manual_seed(0)
    made, changed = adapted_unet(unet, rows=[0, 1, *[None] * 400, 2])
    new = made.class_embedding.weight
    assert changed == {"class_embedding.weight"}
    assert torch.equal(new[[0, 1, -1]], rows)
    torch.testing.assert_close(new[2:-1].mean(0), rows.mean(0), atol=0.25, rtol=0)
    torch.testing.assert_close(new[2:-1].std(0), rows.std(0, unbiased=False), atol=0.25, rtol=0)
    for number in (0, 2):
        label = torch.full((2,), number)
        after = label if number < 2 else torch.full((2,), len(new) - 1)
        assert torch.equal(
            unet(grey_noise(), T, label).sample, made(grey_noise(), T, after).sample
        )


@torch.no_grad()
def test_a_network_that_knew_no_classes_begins_as_it_was_for_all_of_them() -> None:
    unet = make_tiny_unet(1)
    made, _ = adapted_unet(unet, rows=[None, None])
    for number in (0, 1):
        label = torch.full((2,), number)
        assert torch.equal(made(grey_noise(), T, label).sample, unet(grey_noise(), T).sample)


@torch.no_grad()
def test_a_class_becomes_that_of_all_images() -> None:
    unet = make_tiny_unet(1, num_class_embeds=3)
    made, _ = adapted_unet(unet, folded_row=2)
    wanted = unet(grey_noise(), T, torch.tensor([2, 2])).sample
    torch.testing.assert_close(made(grey_noise(), T).sample, wanted)
    assert made.config.num_class_embeds is None


def test_what_needs_no_change_is_the_network_itself() -> None:
    unet = make_tiny_unet(1, num_class_embeds=3)
    same, changed = adapted_unet(unet, sample_size=8, channels=1, rows=[0, 1, 2], dropout=0.0)
    assert same is unet
    assert changed == set()
    larger, changed = adapted_unet(unet, sample_size=16)
    assert changed == set()
    assert larger.config.sample_size == 16
    assert all(map(torch.equal, larger.parameters(), unet.parameters()))


def test_channels_without_a_rule_are_refused() -> None:
    with pytest.raises(ValueError, match="channels=3 cannot be made of a model of 4"):
        adapted_unet(make_tiny_unet(4), channels=3)


@torch.no_grad()
def test_a_picture_is_not_looked_at_at_first_and_stays_with_other_channels() -> None:
    told = Conditioning(channels=2, sides=(8, 8))
    grey, picture = make_tiny_unet(1), torch.randn(2, 2, 8, 8)
    made, changed = adapted_unet(grey, conditioning=told)
    assert changed == {"conv_in.weight"}
    assert (made.config.in_channels, made.config.out_channels) == (3, 1)
    wanted = grey(grey_noise(), T).sample
    found = made(torch.cat([grey_noise(), picture], 1), T).sample
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)

    grey = make_tiny_unet(3, out_channels=1)
    set_facts(grey, ModelFacts(conditioning=told.to_dict()))
    wanted = grey(torch.cat([grey_noise(), picture], 1), T).sample
    colour, _ = adapted_unet(grey, channels=3)
    assert (colour.config.in_channels, colour.config.out_channels) == (5, 3)
    found = colour(torch.cat([grey_noise(3), picture], 1), T).sample
    torch.testing.assert_close(found, wanted.repeat(1, 3, 1, 1))


@torch.no_grad()
def test_numbers_take_the_place_of_classes() -> None:
    plain = make_tiny_unet(1)
    made, changed = adapted_unet(
        plain, conditioning=Conditioning(columns=("a",), low=(0.0,), high=(1.0,))
    )
    assert (made.config.class_embed_type, changed) == ("identity", set())
    nothing = torch.zeros(2, 32)
    assert torch.equal(made(grey_noise(), T, nothing).sample, plain(grey_noise(), T).sample)
