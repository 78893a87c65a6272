"""Pictures that the page changes: the pipeline's own tasks, within the page's limits."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.pipelines import pipeline
from helpers.unets import make_tiny_unet
from PIL import Image

from ddpm_pipeline.app.editing import EditWish, edit, hole_of
from ddpm_pipeline.app.models import Models

LIMITS = {"most_images": 2, "most_steps": 8}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "model"
    pipeline(make_tiny_unet(), num_train_timesteps=10).save_pretrained(folder)
    return str(folder)


def picture(side: int = 8) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    return Image.fromarray(values).convert("RGB")


def test_a_hole_is_what_is_painted_on_any_layer() -> None:
    layers = [Image.new("RGBA", (4, 3)) for _ in range(2)]
    assert hole_of(layers, (4, 3)) is None
    layers[0].putpixel((1, 2), (255, 0, 0, 255))
    layers[1].putpixel((3, 0), (0, 0, 0, 9))
    expected = np.zeros((3, 4), dtype=bool)
    expected[2, 1] = expected[0, 3] = True
    assert np.array_equal(np.asarray(hole_of(layers, (4, 3))), expected)


def test_only_the_hole_is_filled(model: str) -> None:
    hole = np.zeros((8, 8), dtype=bool)
    hole[:, :4] = True
    wish = EditWish(
        model=model,
        task="fill",
        picture=picture(),
        hole=Image.fromarray(hole),
        num_images=1,
        num_steps=3,
    )
    *_, view = edit(Models((model,)), wish, **LIMITS)
    times = view.picture.width // 10  # a border of one pixel around the image
    found = np.asarray(view.picture)[::times, ::times][1:9, 1:9]
    given = np.asarray(picture().convert("L"))
    assert np.array_equal(found[:, 4:], given[:, 4:])
    assert not np.array_equal(found[:, :4], given[:, :4])


def test_strength_0_gives_the_picture_back(model: str) -> None:
    wish = EditWish(
        model=model, task="vary", picture=picture(), strength=0.0, num_images=1, num_steps=4
    )
    *_, view = edit(Models((model,)), wish, **LIMITS)
    found = view.picture
    times = found.width // 10
    inner = np.asarray(found)[::times, ::times][1:9, 1:9]
    assert np.array_equal(inner, np.asarray(picture().convert("L")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"picture": None}, "picture must be given"),
        ({"hole": None}, "hole must be painted"),
        ({"task": "melt"}, "task must be one of fill, vary, got 'melt'"),
        ({"num_images": 3}, "images must be from 1 to 2 here, got 3"),
        ({"num_steps": 11}, "steps must be from 1 to 8 here, got 11"),
        ({"task": "vary", "strength": 2.0}, "strength"),
        ({"model": "/etc"}, "model must be one of"),
    ],
)
def test_what_is_not_allowed_is_refused(
    model: str, options: dict[str, object], message: str
) -> None:
    wish = {"model": model, "task": "fill", "picture": picture(), "num_images": 1, "num_steps": 2}
    wish["hole"] = Image.new("L", (8, 8), 255)
    with pytest.raises(ValueError, match=message):
        list(edit(Models((model,)), EditWish(**{**wish, **options}), **LIMITS))
