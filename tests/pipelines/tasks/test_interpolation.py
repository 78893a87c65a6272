"""A walk from one picture to another: its ends, and the circle between."""

from __future__ import annotations

import pytest
import torch
from helpers.pipelines import pipeline, seeds

from ddpm_pipeline.pipelines.tasks.interpolation import shares_of_way, spherical

IMAGES = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_the_circle_keeps_lengths_and_turns_evenly() -> None:
    source = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1, 3, 8, 8, generator=source, dtype=torch.float64) for _ in "ab")
    b = b * a.norm() / b.norm()
    found = spherical(a, b, shares_of_way(7, a)).flatten(1)
    torch.testing.assert_close(found.norm(dim=1), a.norm().expand(7))
    angles = torch.cosine_similarity(found[1:], found[:-1]).acos()
    torch.testing.assert_close(angles, angles[:1].expand(6))
    torch.testing.assert_close(found[[0, -1]], torch.cat([a, b]).flatten(1))
    torch.testing.assert_close(spherical(a, a, shares_of_way(3, a)), a.expand(3, -1, -1, -1))


def test_both_ends_are_the_images(tiny_unet: object) -> None:
    pipe = pipeline(tiny_unet())
    how = {"num_inference_steps": 5, "calls_per_step": 10, "output_type": "pt"}
    images = pipe(2, seeds(1, 2), 5, "pt", eta=0.0).images
    found = pipe.interpolate(images[:1], images[1:], 5, **how).images
    assert found.shape == (5, 1, 8, 8)
    assert (found[[0, -1]] - images).square().mean().sqrt() < 0.02
    steps = (found[1:] - found[:-1]).abs().mean((1, 2, 3))
    assert steps.max() < (images[0] - images[1]).abs().mean()
    listed = pipe.interpolate(images[:1], images[1:], 5, generator=seeds(*range(5)), **how).images
    torch.testing.assert_close(listed, found, rtol=0, atol=0.02)


def test_classes_may_change_on_the_way(tiny_unet: object) -> None:
    pipe = pipeline(tiny_unet(num_class_embeds=4))
    how = {"num_inference_steps": 5, "output_type": "np"}
    assert (
        len(pipe.interpolate(IMAGES[:1], IMAGES[1:], 3, class_labels=[0, 1, 2], **how).images) == 3
    )
    assert len(pipe.interpolate(IMAGES[:1], IMAGES[1:], 3, class_labels=2, **how).images) == 3
    with pytest.raises(ValueError, match="class_labels must be one or n=3 of them, got 2"):
        pipe.interpolate(IMAGES[:1], IMAGES[1:], 3, class_labels=[0, 1], **how)


def test_mistakes_are_named(tiny_unet: object) -> None:
    pipe = pipeline(tiny_unet())
    with pytest.raises(ValueError, match="n must be an integer of at least 2, got 1"):
        pipe.interpolate(IMAGES[:1], IMAGES[1:], 1)
    with pytest.raises(ValueError, match="b must be one image, got 2"):
        pipe.interpolate(IMAGES[:1], IMAGES, 3)
    with pytest.raises(TypeError, match="no option 'batch_size' here"):
        pipe.interpolate(IMAGES[:1], IMAGES[1:], 3, batch_size=4)
