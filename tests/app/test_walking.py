"""Walks of the page: from one image to another, and how they are shown."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpm_pipeline.app.drawing import View
from ddpm_pipeline.app.models import Models
from ddpm_pipeline.app.walking import WalkWish, walk, write_animation
from ddpm_pipeline.common import stream_generator

LIMITS = {"most_images": 6, "most_steps": 8}


def picture(seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(values)


def walked(model: str, **options: Any) -> tuple[list[View], View]:
    wish = WalkWish(**{"model": model, "num_images": 5, "num_steps": 6, **options})
    *before, last = walk(Models((model,)), wish, **LIMITS)
    return before, last


def small(frame: Image.Image) -> np.ndarray:
    times = frame.width // 8
    return np.asarray(frame)[::times, ::times].astype(int)


def test_a_walk_between_seeds_begins_and_ends_with_their_images(model: str) -> None:
    _, last = walked(model, seed=3, last_seed=8)
    assert len(last.frames) == 5
    pipe = Models((model,)).open(model).pipe
    for seed, frame in ((3, last.frames[0]), (8, last.frames[-1])):
        generator = [stream_generator("samples", seed, 0)]
        drawn = pipe(generator=generator, num_inference_steps=6, eta=0.0, max_batch_size=1)
        assert np.abs(small(frame) - np.asarray(drawn.images[0])).max() <= 1
    steps = [small(a) - small(b) for a, b in zip(last.frames, last.frames[1:], strict=False)]
    assert all(np.abs(step).max() > 0 for step in steps)
    assert last.picture.width > 4 * last.picture.height


def test_a_walk_between_pictures_begins_and_ends_with_them(model: str) -> None:
    ends = (picture(0), picture(1))
    before, last = walked(model, pictures=ends, num_steps=8)
    for end, frame in zip(ends, (last.frames[0], last.frames[-1]), strict=True):
        assert np.abs(small(frame) - np.asarray(end)).max() <= 1
    assert all(view.said.startswith(("finding the noise", "drawing")) for view in before)


def test_an_animation_goes_there_and_back() -> None:
    frames = [Image.new("RGB", (4, 4), (60 * i, 0, 0)) for i in range(4)]
    file = io.BytesIO()
    write_animation(file, frames)
    with Image.open(file) as found:
        assert (found.format, found.n_frames, found.info["loop"]) == ("PNG", 6, 0)
        seen = []
        for i in range(6):
            found.seek(i)
            seen.append(found.convert("RGB").getpixel((0, 0))[0] // 60)
    assert seen == [0, 1, 2, 3, 2, 1]


def test_an_animation_of_two_images() -> None:
    file = io.BytesIO()
    write_animation(file, [Image.new("L", (4, 4), 0), Image.new("L", (4, 4), 255)])
    with Image.open(file) as found:
        assert found.n_frames == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_images": 1}, "images must be at least 2 on a way, got 1"),
        ({"num_images": 7}, "images must be from 1 to 6 here, got 7"),
        ({"num_steps": 9}, "steps must be from 1 to 8 here, got 9"),
        ({"pictures": (picture(0), None)}, "pictures must be two: upload the first and the last"),
        ({"last_seed": -1}, "-1"),
        ({"class_label": "cat"}, "class_labels=.* needs a class-conditional model"),
        ({"model": "/etc"}, "model must be one of"),
    ],
)
def test_what_is_not_allowed_is_refused(
    model: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        list(
            walk(
                Models((model,)), WalkWish(**{"model": model, "num_steps": 2, **options}), **LIMITS
            )
        )
