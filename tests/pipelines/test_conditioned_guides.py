"""A guide of a model that is conditioned: what it is told is made for the guide itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from helpers.pipelines import pipeline, seeds
from helpers.unets import make_tiny_unet
from torch import Tensor

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.networks import Conditioning, ModelFacts, set_facts

PICTURE = Conditioning(channels=1, sides=(4, 4))
VECTOR = Conditioning(columns=("x", "angle"), low=(0.0, -90.0), high=(1.0, 90.0))
PICTURES = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(2))


def of_pictures(names: tuple[str, ...] = (), seed: int = 0, **facts: object) -> UNet2DModel:
    """Make a network of pictures, and of classes where these have names."""
    told = {"num_class_embeds": len(names) + 1} if names else {}
    unet = make_tiny_unet(channels=2, out_channels=1, seed=seed, **told)
    facts = {"class_counts": (1,) * len(names) if names else None, **facts}
    set_facts(unet, ModelFacts(class_names=names or None, conditioning=PICTURE.to_dict(), **facts))
    return unet


def of_vectors(widths: tuple[int, int], seed: int = 0) -> UNet2DModel:
    options = {"class_embed_type": "identity", "block_out_channels": widths}
    unet = make_tiny_unet(seed=seed, **options)
    set_facts(unet, ModelFacts(conditioning=VECTOR.to_dict()))
    return unet


def told_to(unet: UNet2DModel) -> list[tuple[Tensor, Tensor | None]]:
    """Note the input and the labels of each call of a network."""
    seen: list[tuple[Tensor, Tensor | None]] = []
    unet.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args[0], kwargs.get("class_labels"))),
        with_kwargs=True,
    )
    return seen


def draw(pipe: DDPMPipeline, **options: object) -> np.ndarray:
    how = {"batch_size": 2, "generator": seeds(0, 1), "num_inference_steps": 2}
    return pipe(**{**how, "output_type": "np", **options}).images


def test_classes_are_matched_by_name_beside_a_picture() -> None:
    f, g = of_pictures(("cat", "dog")), of_pictures(("dog", "cat"), seed=1, class_counts=(1, 0))
    own, its = told_to(f), told_to(g)
    how = {"condition": PICTURES, "guidance_scale": 2.0, "guidance_model": g}
    draw(pipeline(f), class_labels="dog", **how)
    assert len(its) == 2
    for (x, labels), (its_x, its_labels) in zip(own, its, strict=True):
        assert set(labels.tolist()) == {1}
        assert set(its_labels.tolist()) == {0}
        assert torch.equal(x, its_x)  # the picture too
    with pytest.raises(ValueError, match="held no images of class 'cat'"):
        draw(pipeline(f), class_labels="cat", **how)


def test_a_guide_of_pictures_alone_guides_a_model_of_classes_too_and_the_other_way_round() -> None:
    both, alone = of_pictures(("cat", "dog"), trains_null_class=True), of_pictures(seed=1)
    how = {"condition": PICTURES, "guidance_scale": 2.0}
    seen = told_to(alone)
    draw(pipeline(both), class_labels=["cat", "dog"], guidance_model=alone, **how)
    assert [labels for _, labels in seen] == [None, None]
    seen = told_to(both)
    draw(pipeline(alone), guidance_model=both, **how)
    assert {n for _, labels in seen for n in labels.tolist()} == {2}  # the null class
    untold = of_pictures(("cat", "dog"), trains_null_class=False)
    with pytest.raises(ValueError, match="guidance_model has classes and no trained null class"):
        draw(pipeline(alone), guidance_model=untold, **how)


def test_a_vector_is_embedded_as_wide_as_the_guide_has_it() -> None:
    f, g = of_vectors((16, 16)), of_vectors((8, 16), seed=1)
    vectors = [[0.25, 45.0], [1.0, -90.0]]
    expected = told_to(g)
    draw(pipeline(g), condition=vectors)  # what the guide is told as a model of its own
    seen, labels = told_to(g), [labels for _, labels in expected]
    draw(pipeline(f), condition=vectors, guidance_scale=2.0, guidance_model=g)
    assert len(seen) == 2
    for (_, found), wanted in zip(seen, labels, strict=True):
        assert found.shape[1] == 32
        assert torch.equal(found, wanted)


def test_a_guide_of_classes_alone_guides_a_model_of_vectors_by_its_null_class() -> None:
    f, g = of_vectors((8, 16)), make_tiny_unet(seed=1, num_class_embeds=3)
    how = {"condition": [0.5, 0.0], "guidance_scale": 2.0, "guidance_model": g}
    with pytest.raises(ValueError, match="guidance_model has classes and no trained null class"):
        draw(pipeline(f), **how)
    names = {"class_names": ("cat", "dog"), "class_counts": (1, 1)}
    set_facts(g, ModelFacts(**names, trains_null_class=True))
    seen = told_to(g)
    draw(pipeline(f), **how)
    assert {n for _, labels in seen for n in labels.tolist()} == {2}
    plain = make_tiny_unet(seed=2)
    seen = told_to(plain)
    draw(pipeline(f), **{**how, "guidance_model": plain})
    assert [labels for _, labels in seen] == [None, None]
