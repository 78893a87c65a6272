"""Models with conditions on the page: what is asked of them is what the commands draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.pipelines import pipeline
from helpers.unets import make_tiny_unet
from PIL import Image

from ddpm_pipeline.app.conditions import numbers_of, shown_condition, usual_numbers
from ddpm_pipeline.app.drawing import Wish, draw
from ddpm_pipeline.app.editing import EditWish, edit
from ddpm_pipeline.app.models import Models
from ddpm_pipeline.app.walking import WalkWish, walk
from ddpm_pipeline.cli.commands import main
from ddpm_pipeline.networks import Conditioning, ModelFacts, ValueScale, set_facts

LIMITS = {"most_images": 4, "most_steps": 8}
TOLD = Conditioning(
    columns=("x", "y"), low=(0.0, 1.0), high=(1.0, 3.0), channels=1, sides=(4, 4), trains_null=True
)
GREYS = np.random.default_rng(0).integers(0, 256, (4, 4), np.uint8)


def save(folder: Path, told: Conditioning) -> str:
    unet = make_tiny_unet(2, out_channels=1, class_embed_type="identity")
    set_facts(unet, ModelFacts(conditioning=told.to_dict()))
    pipeline(unet, num_train_timesteps=10).save_pretrained(folder / "told")
    return str(folder / "told")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("models"), TOLD)


def wish(told: str, **more: object) -> dict[str, object]:
    """What is asked for, with the condition."""
    given = {"model": told, "num_images": 2, "num_steps": 3, "guidance_scale": 2.0}
    given |= {"condition_picture": Image.fromarray(GREYS), "condition_numbers": (0.25, 2.5)}
    return given | more


def test_the_page_draws_what_the_command_draws(told: str, tmp_path: Path) -> None:
    *_, last = draw(Models((told,)), Wish(**wish(told)), **LIMITS)
    (tmp_path / "low").mkdir()
    Image.fromarray(GREYS).save(tmp_path / "low/0.png")
    path = tmp_path / "grid.png"
    options = ["--num_images", "2", "--num_inference_steps", "3", "--scheduler", "as_saved"]
    options += ["--condition", str(tmp_path / "low"), "--condition_numbers", "0.25", "2.5"]
    options += ["--guidance_scale", "2", "--output", str(path)]
    assert main(["sample", told, *options]) == 0
    with Image.open(path) as grid:
        times = last.picture.width // grid.width
        expected = np.repeat(np.repeat(np.asarray(grid), times, 0), times, 1).astype(int)
    assert np.abs(np.asarray(last.picture).astype(int) - expected).max() <= 1
    *_, other = draw(Models((told,)), Wish(**wish(told, condition_numbers=(1, 1))), **LIMITS)
    assert (np.asarray(other.picture) != np.asarray(last.picture)).any()


def test_a_picture_of_any_size_is_brought_to_the_one_that_the_model_is_given(told: str) -> None:
    drawn = []
    for size in ((4, 4), (11, 9)):
        grey = Image.new("L", size, 90)
        *_, last = draw(Models((told,)), Wish(**wish(told, condition_picture=grey)), **LIMITS)
        drawn.append(np.asarray(last.picture))
    assert np.array_equal(*drawn)


def test_a_picture_is_varied_and_walked_to_under_a_condition(told: str) -> None:
    ends = [Image.fromarray(np.full((8, 8), grey, np.uint8)) for grey in (60, 180)]
    models = Models((told,))
    *_, varied = edit(
        models, EditWish(**wish(told), task="vary", picture=ends[0], strength=0.0), **LIMITS
    )
    assert np.abs(varied.images.numpy() * 255 - 60).max() < 1
    *_, last = walk(models, WalkWish(**wish(told), pictures=tuple(ends)), **LIMITS)
    for image, grey in zip(last.images, (60, 180), strict=True):
        assert np.abs(image.numpy() * 255 - grey).max() < 3
    *_, last = walk(models, WalkWish(**wish(told), last_seed=1), **LIMITS)
    assert len(last.images) == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"condition_picture": None}, "picture of the condition must be given: upload one"),
        ({"condition_numbers": (1.0,)}, "numbers must be 2, x, y; got 1"),
        ({"condition_numbers": (float("nan"), 1.0)}, "must be finite"),
    ],
)
def test_what_is_missing_is_said(told: str, more: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(draw(Models((told,)), Wish(**wish(told, **more)), **LIMITS))


def test_a_model_without_conditions_passes_over_hidden_fields(model: str) -> None:
    """Which may hold what was for another model."""
    hidden = wish(model, guidance_scale=1.0)
    *_, last = draw(Models((model,)), Wish(**hidden), **LIMITS)
    assert last.is_last


def test_exact_conditions_are_for_the_command(tmp_path: Path) -> None:
    scale = ValueScale("uint16", (2047.5,), (2047.5,), 0, 4095, 1)
    told = Conditioning(channels=1, sides=(4, 4), values=scale.to_dict())
    name = save(tmp_path, told)
    with pytest.raises(ValueError, match="conditioned on images of exact values; `ddpm sample`"):
        Models((name,)).open(name)


def test_conditions_of_more_channels_than_a_picture_are_for_the_command(tmp_path: Path) -> None:
    unet = make_tiny_unet(8, out_channels=1)
    set_facts(unet, ModelFacts(conditioning=Conditioning(channels=7, sides=(4, 4)).to_dict()))
    pipeline(unet, num_train_timesteps=10).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"images of 7 channels, .* 1, 3 or 4; `ddpm sample` does"
    ):
        Models((str(tmp_path),)).open(str(tmp_path))


def test_a_deep_picture_is_the_condition_that_its_values_say(tmp_path: Path) -> None:
    greys = np.arange(16, dtype=np.uint16).reshape(4, 4) * 4000
    name = save(tmp_path, TOLD)
    told = shown_condition(Models((name,)).open(name), Image.fromarray(greys), (0.5, 2.0))
    assert np.array_equal(told.picture[0, 0].numpy(), np.rint(greys / 257))


def test_numbers_are_read_as_they_are_written() -> None:
    assert numbers_of("0.3, 45") == numbers_of(" 0.3  45 ") == (0.3, 45.0)
    assert numbers_of("") == numbers_of(None) == ()
    assert numbers_of(usual_numbers(TOLD)) == (0.5, 2.0)
    with pytest.raises(ValueError, match=r"numbers must be like 0\.3 45, got 'a few'"):
        numbers_of("a few")
