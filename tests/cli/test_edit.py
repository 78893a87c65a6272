"""``ddpm edit``: images in, images out, and a sheet that shows both."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from helpers.unets import make_tiny_unet
from PIL import Image

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.cli.commands import main
from ddpm_pipeline.networks import Conditioning, ModelFacts, ValueScale, set_facts
from ddpm_pipeline.pipelines import EditConfig, edit_images

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (2, 8, 8), np.uint8)
STEPS = ["--num_inference_steps", "3"]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    DDPMPipeline(make_tiny_unet(), DDPMScheduler(100)).save_pretrained("model")
    for name, pixels in zip("ab", PIXELS, strict=True):
        Image.fromarray(pixels).save(f"{name}.png")
    hole = np.zeros((8, 8), np.uint8)
    hole[3:6, 3:6] = 255
    Image.fromarray(hole).save("mask.png")
    Image.fromarray(PIXELS[0]).resize((16, 12)).save("large.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("black.png")
    Path("text.png").write_text("no picture")
    return tmp_path


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def cell(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    y, x = 2 + row * 10, 2 + column * 10
    return sheet[y : y + 8, x : x + 8]


@pytest.mark.parametrize(
    ("options", "results", "shape"),
    [
        (["--task", "vary", "--num_results", "3"], 6, (2, 4)),
        (["--task", "inpaint", "--mask", "mask.png", "--method", "dps"], 8, (2, 6)),
        (["--task", "inpaint", "--mask", "mask.png", "--iterations", "2"], 8, (2, 6)),
        (["--task", "interpolate", "--num_results", "4"], 4, (1, 6)),
        (["--task", "invert"], 2, (2, 3)),
        (["--task", "restore", "--noise_std", "0.02", "--num_results", "1"], 2, (2, 2)),
    ],
    ids=lambda value: " ".join(value[1:2]) if isinstance(value, list) else None,
)
def test_every_task_writes_its_results_and_a_sheet(
    places: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    results: int,
    shape: tuple[int, int],
) -> None:
    assert main(["edit", "model", "--image", "a.png", "b.png", *options, *STEPS]) == 0
    assert capsys.readouterr().out.strip() == "edited"
    files = sorted(places.joinpath("edited").glob("0*.png"))
    assert len(files) == results
    sheet = pixels_of(places / "edited" / "sheet.png")
    rows, columns = shape
    assert sheet.shape == (2 + 10 * rows, 2 + 10 * columns)
    assert np.array_equal(cell(sheet, 0, 0), PIXELS[0])
    first = {"vary": 1, "inpaint": 2, "invert": 2}.get(options[1], 1)
    assert np.array_equal(cell(sheet, 0, first), pixels_of(files[0]))
    if options[1] == "inpaint":
        hole = pixels_of(places / "mask.png") > 0
        assert np.array_equal(cell(sheet, 0, 1) > 0, hole)
        assert np.array_equal(pixels_of(files[0])[~hole], PIXELS[0][~hole])
    assert (places / "edited" / "noise.npy").exists() == (options[1] == "invert")


def test_a_result_follows_from_the_seed_and_its_number(places: Path) -> None:
    vary = ["edit", "model", "--task", "vary", "--image", "a.png", *STEPS]
    for output, extra in (("one", ["--num_results", "1"]), ("two", ["--num_results", "2"])):
        assert main([*vary, "--output", output, *extra]) == 0
    assert main([*vary, "--output", "other", "--num_results", "1", "--seed", "7"]) == 0
    one, two, other = (pixels_of(places / n / "000000.png") for n in ("one", "two", "other"))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--task vary --image none.png", "image='none.png' does not exist"),
        ("--task vary --image text.png", "cannot be read as a picture"),
        ("--task vary --image large.png", "got 12 x 16; --resize"),
        ("--task vary --image a.png --strength 1.5", "strength must lie in [0, 1], got 1.5"),
        ("--task vary --image a.png --mask mask.png", "--mask is for task inpaint and restore"),
        ("--task inpaint --image a.png", "--mask must be given for task inpaint"),
        ("--task inpaint --image a.png --mask black.png", "mask must have a hole"),
        ("--task inpaint --image a.png --mask large.png", "mask must be of the image's size"),
        ("--task interpolate --image a.png", "--image must name two files"),
        ("--task restore --image a.png --noise_std -1", "noise_std must be at least 0"),
        ("--task restore --image a.png --operator shake", "operator must be 'blur:SIGMA'"),
        ("--task restore --image a.png --method repaint", "method 'repaint' is for known pixels"),
        ("--task vary --image a.png --class_labels 3", "class"),
        ("--task paint --image a.png", "--task must be one of vary, inpaint"),
        ("--task vary", "missing: --image"),
        ("--task vary --image a.png --output model", "output 'model' is not empty; --overwrite"),
    ],
)
def test_mistakes_are_one_line(
    places: Path, capsys: pytest.CaptureFixture[str], options: str, said: str
) -> None:
    try:
        code = main(["edit", "model", *options.split(), *STEPS])
    except SystemExit as stop:
        code = stop.code
    # Behind the bar of loading, where the model must be known to tell.
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in last
    assert last.startswith("ddpm edit: error: ")
    assert code in (1, 2)
    assert not (places / "edited").exists()


def test_images_are_resized_where_that_is_asked_for(places: Path) -> None:
    argv = ["edit", "model", "--task", "vary", "--image", "large.png", "--resize", *STEPS]
    assert main(argv) == 0
    assert pixels_of(places / "edited" / "000003.png").shape == (8, 8)


def test_a_model_of_exact_values_is_refused_before_anything_is_drawn(
    places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unet = make_tiny_unet()
    scale = ValueScale("uint16", (2047.5,), (2047.5,), 0, 4095, 1)
    set_facts(unet, ModelFacts(values=scale.to_dict()))
    DDPMPipeline(unet, DDPMScheduler(100)).save_pretrained("exact")
    assert main(["edit", "exact", "--task", "vary", "--image", "a.png", *STEPS]) == 2
    assert "this one is of exact uint16" in capsys.readouterr().err.splitlines()[-1]
    assert not (places / "edited").exists()


def test_another_model_guides(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DDPMPipeline(make_tiny_unet(seed=1), DDPMScheduler(100)).save_pretrained("weak")
    begin = ["edit", "model", "--task", "vary", "--image", "a.png", *STEPS]
    guided = ["--guidance_model", "weak", "--guidance_scale", "3"]
    assert main([*begin, "--output", "plain"]) == 0
    assert main([*begin, "--output", "guided", *guided]) == 0
    found = [pixels_of(Path(name, "000000.png")) for name in ("plain", "guided")]
    assert not np.array_equal(*found)
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main([*begin, "--output", "no", "--guidance_model", "weak"])
    assert "--guidance_model needs a --guidance_scale other than 1" in capsys.readouterr().err
    assert main([*begin, "--output", "no", *guided[2:], "--guidance_model", "gone"]) == 2
    assert "guidance_model" in capsys.readouterr().err
    assert not Path("no").exists()


@pytest.mark.parametrize(("task", "method"), [("vary", "image_to_image"), ("invert", "invert")])
def test_a_model_of_conditions_is_refused_before_it_is_loaded(
    places: Path, capsys: pytest.CaptureFixture[str], task: str, method: str
) -> None:
    unet = make_tiny_unet(2, out_channels=1)
    set_facts(unet, ModelFacts(conditioning=Conditioning(channels=1, sides=(4, 4)).to_dict()))
    DDPMPipeline(unet, DDPMScheduler(100)).save_pretrained("told")
    options = EditConfig(model="told", task=task, image=("a.png",), num_inference_steps=3)
    said = f"call pipe.{method}(..., condition=...) in Python"
    with pytest.raises(ValueError, match=re.escape(said)):
        edit_images(options)
    for weights in (places / "told" / "unet").glob("*.safetensors"):
        weights.unlink()
    assert main(["edit", "told", "--task", task, "--image", "a.png", *STEPS]) == 2
    assert capsys.readouterr().err.strip().endswith(said)
    assert not (places / "edited").exists()
