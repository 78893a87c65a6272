"""What each augmentation does, against NumPy, and what the numbers say of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch.testing import assert_close

from ddpm_pipeline.data.augmentation import (
    AUGMENTATIONS,
    augmentation_size,
    augmented,
    draw_augmentation,
    moved_alike,
)

ALL = tuple(AUGMENTATIONS)


def images(channels: int = 3, side: int = 16, count: int = 4) -> torch.Tensor:
    return (
        torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    )


def drawn(
    names: tuple[str, ...], probability: float = 1.0, count: int = 4, seed: int = 0
) -> torch.Tensor:
    return draw_augmentation(
        names, probability, count, (16, 16), torch.Generator().manual_seed(seed)
    )


def changed(name: str, *numbers: float, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """An image, and what an augmentation of these numbers makes of it, (C, H, W)."""
    x_0 = images(channels)[:1]
    result = augmented(x_0, (name,), torch.tensor([numbers], dtype=torch.float32))
    return x_0[0].numpy(), result[0].numpy()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_mirrors_and_turns_are_numpys() -> None:
    before, after = changed("flip", 1)
    close(after, before[:, :, ::-1])
    before, after = changed("vertical_flip", 1)
    close(after, before[:, ::-1])
    seen = set()
    for k, (cos, sin) in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)]):
        before, after = changed("rotate90", cos - 1, sin)
        turns = [i for i in range(4) if np.allclose(after, np.rot90(before, i, (1, 2)), atol=2e-5)]
        assert len(turns) == 1
        assert turns[0] in {k, -k % 4}
        seen.update(turns)
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize(("right", "down"), [(2, 0), (0, 2), (-1, 1), (2, -2)])
def test_translations_are_by_whole_pixels_with_mirrored_borders(right: int, down: int) -> None:
    before, after = changed("translate", right / 2, down / 2)  # 2 = 16 / 8 at most
    padded = np.pad(before, ((0, 0), (2, 2), (2, 2)), mode="symmetric")
    close(after, padded[:, 2 - down : 18 - down, 2 - right : 18 - right])


@pytest.mark.parametrize("angle", [0.3, 2.0])
def test_rotations_and_scalings_are_scipys(angle: float) -> None:
    centre = np.array([7.5, 7.5])
    for name, numbers, matrix in (
        (
            "rotate",
            (math.cos(angle) - 1, math.sin(angle)),
            [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]],
        ),
        ("scale", (angle,), np.eye(2) * 2 ** (-0.2 * angle)),
    ):
        before, after = changed(name, *numbers)
        linear = np.array(matrix)
        for channel, found in zip(before, after, strict=True):
            expected = ndimage.affine_transform(
                channel, linear, centre - linear @ centre, order=1, mode="reflect"
            )
            close(found, expected)


def test_a_crop_is_a_part_of_the_image_enlarged() -> None:
    """Cut to three quarters, in the upper left corner: positions are 0.75 of what they were."""
    before, after = changed("crop", 1.0, -1.0, -1.0)
    for channel, found in zip(before, after, strict=True):
        matrix = np.eye(2) * 0.75
        expected = ndimage.affine_transform(
            channel, matrix, [0.75 / 2 - 0.5] * 2, order=1, mode="reflect"
        )
        close(found, expected)


def test_colours_are_what_their_names_say() -> None:
    before, after = changed("brightness", 0.5)
    close(after, before + 0.1)
    before, after = changed("contrast", 2.0)
    close(after, before * 2)
    before, after = changed("saturation", -100.0)
    close(after, np.broadcast_to(before.mean(0), before.shape))
    before, after = changed("saturation", 1.0)
    close(after - after.mean(0), 2 * (before - before.mean(0)))


def test_an_alpha_channel_keeps_its_values() -> None:
    before, after = changed("brightness", 1.0, channels=4)
    assert np.array_equal(before[3], after[3])
    assert not np.allclose(before[:3], after[:3])


def test_several_happen_one_after_the_other() -> None:
    x_0 = images()
    names = ("translate", "rotate90", "flip", "contrast")
    numbers = {"flip": [1.0], "rotate90": [-1.0, 1.0], "translate": [0.5, -1.0], "contrast": [1.0]}
    together = augmented(x_0, names, torch.tensor([[v for n in names for v in numbers[n]]] * 4))
    one_by_one = x_0
    for name in ("flip", "rotate90", "translate", "contrast"):
        one_by_one = augmented(one_by_one, (name,), torch.tensor([numbers[name]] * 4))
    assert_close(together, one_by_one, atol=5e-5, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_zeros_leave_an_image_as_it_is_and_others_do_not(name: str) -> None:
    x_0 = images()
    numbers = drawn((name,))
    assert numbers.shape == (4, augmentation_size((name,)))
    numbers[1] = 0
    result = augmented(x_0, (name,), numbers)
    assert torch.equal(result[1], x_0[1])
    for i in (0, 2, 3):
        assert torch.equal(result[i], x_0[i]) == bool((numbers[i] == 0).all())


def test_each_happens_as_often_as_asked() -> None:
    numbers = drawn(ALL, 0.2, 4000)
    shares = {}
    for name, part in zip(
        ALL, numbers.split([AUGMENTATIONS[n].size for n in ALL], 1), strict=True
    ):
        shares[name] = (part != 0).any(1).float().mean().item()
    idle = {"flip": 1 / 2, "vertical_flip": 1 / 2, "rotate90": 1 / 4, "translate": 1 / 25}
    for name, share in shares.items():
        expected = 0.2 * (1 - idle.get(name, 0))
        assert abs(share - expected) < 4 * math.sqrt(expected / 4000)
    both = ((numbers[:, 0] != 0) & (numbers[:, 1] != 0)).float().mean().item()
    assert both == pytest.approx(shares["flip"] * shares["vertical_flip"], abs=0.01)


def test_the_amounts_are_those_of_the_paper() -> None:
    numbers = drawn(("scale", "rotate"), 1.0, 3000)
    assert stats.kstest(numbers[:, 0].numpy(), "norm").pvalue > 1e-3
    angles = torch.atan2(numbers[:, 2], 1 + numbers[:, 1]) / math.pi
    assert stats.kstest(angles.numpy(), "uniform", (-1, 2)).pvalue > 1e-3


def test_draws_follow_from_the_generator_alone() -> None:
    assert torch.equal(drawn(ALL, 0.5, 9, seed=3), drawn(ALL, 0.5, 9, seed=3))
    assert not torch.equal(drawn(ALL, 0.5, 9, seed=3), drawn(ALL, 0.5, 9, seed=4))


def test_oblong_images_are_turned_and_moved_by_pixels() -> None:
    """16 high and 8 wide: turned by half they are NumPy's, and a quarter turn keeps pixels."""
    x_0 = torch.rand(1, 1, 16, 8, generator=torch.Generator().manual_seed(0))
    turned = augmented(x_0, ("rotate90",), torch.tensor([[-2.0, 0.0]]))
    close(turned[0].numpy(), np.rot90(x_0[0].numpy(), 2, (1, 2)))
    quarter = augmented(x_0, ("rotate90",), torch.tensor([[-1.0, 1.0]]))[0, 0, 4:12].numpy()
    middle = x_0[0, 0, 4:12].numpy()
    assert any(np.allclose(quarter, np.rot90(middle, k), atol=2e-5) for k in (1, 3))
    moved = augmented(x_0, ("translate",), torch.tensor([[1.0, 1.0]]))[0, 0].numpy()
    close(moved[2:, 1:], x_0[0, 0, :-2, :-1].numpy())
    numbers = draw_augmentation(
        ("translate",), 1.0, 500, (16, 8), torch.Generator().manual_seed(0)
    )
    assert set(numbers[:, 0].tolist()) == {-1.0, 0.0, 1.0}
    assert set(numbers[:, 1].tolist()) == {-1.0, -0.5, 0.0, 0.5, 1.0}


def test_pictures_that_go_with_images_move_as_they_do_and_keep_their_colours() -> None:
    x_0 = images()
    places = tuple(name for name in ALL if AUGMENTATIONS[name].place is not None)
    a = draw_augmentation(places, 0.5, len(x_0), (16, 16), torch.Generator().manual_seed(3))
    assert torch.equal(moved_alike(x_0, places, a), augmented(x_0, places, a))
    assert not torch.equal(moved_alike(x_0, places, a), x_0)
    colours = tuple(name for name in ALL if AUGMENTATIONS[name].colour is not None)
    b = torch.ones(len(x_0), len(colours))
    assert torch.equal(moved_alike(x_0, colours, b), x_0)
    both = moved_alike(x_0, (*places, *colours), torch.cat([a, b], 1))
    assert torch.equal(both, moved_alike(x_0, places, a))
    values = x_0[:, :1].sign()
    found = moved_alike(values, places, a, "nearest")
    assert set(found.unique().tolist()) == {-1.0, 1.0}
    assert len(moved_alike(values, places, a).unique()) > 2
