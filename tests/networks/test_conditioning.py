"""A network that is told of augmentations is the plain one where there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from diffusers import UNet2DModel
from torch.testing import assert_close

from ddpm_pipeline.networks.conditioning import (
    condition_on,
    conditions,
    plain_weights,
    unconditioned,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 3


def told(unet: UNet2DModel, *, random: bool = True) -> UNet2DModel:
    condition_on(unet, SIZE, torch.Generator().manual_seed(0))
    if random:
        torch.nn.init.normal_(unet.class_embedding.augmentation[2].weight)
    return unet


@pytest.mark.parametrize("classes", [None, 4])
def test_zeros_are_the_plain_network_to_the_bit(
    tiny_unet: Callable[..., UNet2DModel], classes: int | None
) -> None:
    plain, unet = tiny_unet(num_class_embeds=classes), told(tiny_unet(num_class_embeds=classes))
    x_t, t = torch.randn(5, 1, 8, 8), torch.arange(5)
    labels = None if classes is None else torch.tensor([0, 3, 1, 2, 3])
    expected = plain(x_t, t, labels).sample
    given = conditions(labels, torch.zeros(5, SIZE))
    assert torch.equal(unet(x_t, t, given).sample, expected)
    with unconditioned(unet):
        assert torch.equal(unet(x_t, t, labels).sample, expected)
    other = torch.zeros(5, SIZE)
    other[2] = 1.0
    found = unet(x_t, t, conditions(labels, other)).sample
    assert not torch.allclose(found[2], expected[2], atol=1e-3)
    kept = [0, 1, 3, 4]
    assert_close(found[kept], expected[kept])


@pytest.mark.parametrize("classes", [None, 4])
def test_what_is_saved_is_a_stock_network(
    tiny_unet: Callable[..., UNet2DModel], classes: int | None
) -> None:
    unet = told(tiny_unet(num_class_embeds=classes))
    stock = UNet2DModel.from_config(unet.config)
    weights = plain_weights(unet.state_dict())
    assert len(weights) == len(unet.state_dict()) - 2
    stock.load_state_dict(weights)  # strict
    x_t, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 7])
    labels = None if classes is None else torch.tensor([0, 3])
    with unconditioned(unet):
        assert torch.equal(unet(x_t, t, labels).sample, stock.eval()(x_t, t, labels).sample)


def test_a_fresh_condition_changes_nothing_and_learns(
    tiny_unet: Callable[..., UNet2DModel],
) -> None:
    plain, unet = tiny_unet(), told(tiny_unet(), random=False)
    x_t, t, a = torch.randn(2, 1, 8, 8), torch.tensor([3, 7]), torch.ones(2, SIZE)
    found = unet(x_t, t, a).sample
    assert torch.equal(found, plain(x_t, t).sample)
    found.square().sum().backward()
    assert unet.class_embedding.augmentation[2].weight.grad.abs().max() > 0


def test_the_plain_form_ends_with_its_block(tiny_unet: Callable[..., UNet2DModel]) -> None:
    unet = told(tiny_unet())
    with pytest.raises(ZeroDivisionError), unconditioned(unet):
        assert 1 / (unet.class_embedding is not None)
    assert unet.class_embedding is not None


def test_class_embeddings_of_other_kinds_are_refused(
    tiny_unet: Callable[..., UNet2DModel],
) -> None:
    with pytest.raises(ValueError, match=r"augment needs .* class_embed_type .* got 'timestep'"):
        told(tiny_unet(class_embed_type="timestep"))


def test_networks_of_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"augment needs a UNet2DModel, .* got Linear"):
        condition_on(torch.nn.Linear(2, 2), SIZE, torch.Generator())


def test_embeddings_that_are_given_are_told_beside_augmentations(
    tiny_unet: Callable[..., UNet2DModel],
) -> None:
    plain = tiny_unet(class_embed_type="identity")
    unet = told(tiny_unet(class_embed_type="identity"))
    width = unet.time_embedding.linear_2.out_features
    x_t, t, e = torch.randn(2, 1, 8, 8), torch.tensor([3, 7]), torch.randn(2, width)
    expected = plain(x_t, t, e).sample
    assert torch.equal(unet(x_t, t, conditions(e, torch.zeros(2, SIZE))).sample, expected)
    with unconditioned(unet):
        assert torch.equal(unet(x_t, t, e).sample, expected)
    a = torch.randn(2, SIZE)
    moved = plain(x_t, t, e + unet.class_embedding.augmentation(a)).sample
    assert_close(unet(x_t, t, conditions(e, a)).sample, moved)
    UNet2DModel.from_config(unet.config).load_state_dict(plain_weights(unet.state_dict()))
