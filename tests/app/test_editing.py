"""Pictures that the page changes: the pipeline's own tasks, within the page's limits."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from helpers.pipelines import pipeline
from helpers.unets import make_tiny_unet
from PIL import Image

from ddpm_pipeline.app.drawing import View
from ddpm_pipeline.app.editing import EditWish, edit, hole_of, seen_by
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


def given() -> np.ndarray:
    return np.asarray(picture().convert("L"))


def changed(model: str, **options: Any) -> View:
    wish = {"model": model, "picture": picture(), "num_images": 1, "num_steps": 3, **options}
    *_, view = edit(Models((model,)), EditWish(**wish), **LIMITS)
    assert view.is_last
    return view


def levels(view: View) -> np.ndarray:
    """Its images, (N, H, W) as whole numbers."""
    return (view.images[:, 0] * 255).round().numpy().astype(int)


def test_a_hole_is_what_is_painted_on_any_layer() -> None:
    layers = [Image.new("RGBA", (4, 3)) for _ in range(2)]
    assert hole_of(layers) is None
    assert hole_of([]) is None
    layers[0].putpixel((1, 2), (255, 0, 0, 255))
    layers[1].putpixel((3, 0), (0, 0, 0, 9))
    expected = np.zeros((3, 4), dtype=bool)
    expected[2, 1] = expected[0, 3] = True
    assert np.array_equal(np.asarray(hole_of(layers)), expected)


def test_a_picture_is_seen_as_it_is_scaled_and_cut(model: str) -> None:
    opened = Models((model,)).open(model)
    assert np.array_equal(np.asarray(seen_by(opened, picture()).convert("L")), given())
    wide = np.repeat(np.repeat(np.pad(given(), ((0, 0), (2, 2))), 4, 0), 4, 1)
    seen = np.asarray(seen_by(opened, Image.fromarray(wide)).convert("L")).astype(int)
    assert seen.shape == (8, 8)
    assert np.corrcoef(seen[:, 1:-1].ravel(), given()[:, 1:-1].ravel())[0, 1] > 0.97


def test_only_pixels_that_the_brush_touched_are_filled(model: str) -> None:
    hole = np.zeros((32, 32), dtype=bool)  # four times as large as the model's
    hole[5, :17] = True
    view = changed(model, task="inpaint", hole=Image.fromarray(hole))
    differs = levels(view)[0] != given()
    assert differs[1, :5].sum() >= 4
    differs[1, :5] = False
    assert not differs.any()


def test_strength_0_gives_the_picture_back(model: str) -> None:
    view = changed(model, task="vary", strength=0.0, num_images=2)
    assert np.array_equal(levels(view), np.stack([given()] * 2))
    inner = np.asarray(view.picture)[:: view.picture.height // 10, :: view.picture.height // 10]
    assert np.array_equal(inner[1:9, 1:9], given())


def test_a_whole_picture_is_made_smaller_before_it_is_restored(model: str) -> None:
    view = changed(model, task="restore", operator="downsample:2", num_images=2)
    whole, small, *results = levels(view)
    assert np.array_equal(whole, given())
    means = given().reshape(4, 2, 4, 2).mean((1, 3))
    assert np.abs(small[::2, ::2] - means).max() <= 0.5 + 1e-3
    assert np.array_equal(small, np.repeat(np.repeat(small[::2, ::2], 2, 0), 2, 1))
    assert len(results) == 2
    assert "then what was made of it" in view.said


def test_a_measured_picture_has_the_size_that_it_was_measured_at(model: str) -> None:
    options = {"task": "restore", "operator": "downsample:2", "is_whole": False}
    view = changed(model, picture=picture(4), noise_std=0.1, **options)
    assert view.images.shape == (1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"\(1, 4, 4\), got \(1, 6, 6\)"):
        changed(model, picture=picture(6), **options)


def test_missing_pixels_are_those_of_the_hole(model: str) -> None:
    hole = np.zeros((8, 8), dtype=bool)
    hole[:, :4] = True
    view = changed(model, task="restore", operator="missing", hole=Image.fromarray(hole))
    _, measured, result = levels(view)
    assert np.array_equal(measured, np.where(hole, 0, given()))
    assert np.abs(result - given())[:, 4:].max() <= 2


def test_the_noise_of_a_picture_leads_back_to_it(model: str) -> None:
    view = changed(model, task="invert", num_images=2, num_steps=8)
    first, noise, back = levels(view)
    assert np.array_equal(first, given())
    assert np.abs(back - first).max() <= 1
    assert not np.array_equal(noise, first)
    assert float(re.search(r"at ([\d.]+) dB$", view.said)[1]) > 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"picture": None}, "picture must be given"),
        ({"hole": None}, "hole must be painted"),
        ({"task": "restore", "operator": "missing", "hole": None}, "hole must be painted"),
        ({"task": "restore", "operator": "blur:0"}, "'blur' must have a sigma above 0, got 0"),
        ({"task": "restore", "operator": "downsample:3"}, "factor of at least 2 that divides"),
        ({"task": "restore", "noise_std": -1.0}, "noise_std must be at least 0, got -1"),
        ({"task": "melt"}, "task must be one of inpaint, vary, restore, invert, got 'melt'"),
        ({"num_images": 3}, "images must be from 1 to 2 here, got 3"),
        ({"num_steps": 11}, "steps must be from 1 to 8 here, got 11"),
        ({"task": "vary", "strength": 2.0}, "strength"),
        ({"model": "/etc"}, "model must be one of"),
    ],
)
def test_what_is_not_allowed_is_refused(
    model: str, options: dict[str, object], message: str
) -> None:
    wish = {"task": "inpaint", "picture": picture(), "num_images": 1, "num_steps": 2}
    wish |= {"model": model, "hole": Image.new("L", (8, 8), 255)}
    with pytest.raises(ValueError, match=message):
        list(edit(Models((model,)), EditWish(**{**wish, **options}), **LIMITS))
