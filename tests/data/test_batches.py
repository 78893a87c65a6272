"""Batches of x_0: what comes out of them, and what is refused."""

from __future__ import annotations

import pytest
import torch

from ddpm_pipeline.data.batches import between_levels, checked_batch, split_batch

IMAGES = torch.zeros(3, 1, 4, 4)
LABELS = torch.arange(3)


@pytest.mark.parametrize("item", [(IMAGES, LABELS), [IMAGES, LABELS]])
def test_pairs_are_split(item: tuple | list) -> None:
    assert split_batch(item) == (IMAGES, LABELS)


@pytest.mark.parametrize("item", [IMAGES, [IMAGES], (IMAGES, None)])
def test_data_alone_have_no_labels(item: object) -> None:
    assert split_batch(item) == (IMAGES, None)


def test_precision_is_float32_or_more() -> None:
    for dtype, expected in [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ]:
        x_0, labels = checked_batch("x_0", IMAGES.to(dtype), LABELS, shape=IMAGES.shape[1:])
        assert x_0.dtype == expected
        assert labels is LABELS


@pytest.mark.parametrize(
    ("x_0", "labels", "error", "message"),
    [
        ("image", None, TypeError, "data must be batches of tensors, or of pairs .*, got str"),
        (IMAGES.byte(), None, TypeError, r"floating point in \[-1, 1\], got torch.uint8; for byt"),
        (torch.zeros(3), None, ValueError, r"data must have shape \(N, C, \*\) .*, got \(3,\)"),
        (IMAGES[:0], None, ValueError, r"at least one image, got \(0, 1, 4, 4\)"),
        (IMAGES[..., :2], None, ValueError, r"of shape \(1, 4, 4\), got \(1, 4, 2\)"),
        (IMAGES, LABELS[:2], ValueError, r"class_labels must have shape \(3,\), .*, got \(2,\)"),
    ],
)
def test_mistakes_are_named(
    x_0: object, labels: torch.Tensor | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        checked_batch("data", x_0, labels, shape=IMAGES.shape[1:])


def test_the_256_levels_are_known_in_any_precision() -> None:
    levels = torch.arange(256, dtype=torch.float64) * 2 / 255 - 1
    for dtype in (torch.float32, torch.float64):
        assert not between_levels(levels.to(dtype)).any()
        assert between_levels((levels[:-1] + 1 / 255).to(dtype)).all()
    assert between_levels(levels[3:5] + torch.tensor([0.05 * 2 / 255, 0])).tolist() == [
        True,
        False,
    ]
