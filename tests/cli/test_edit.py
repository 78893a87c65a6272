"""``ddpm edit``: images in, images out, and a sheet that shows both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.unets import make_tiny_unet
from PIL import Image

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.cli.commands import main
from ddpm_pipeline.common import stream_generator
from ddpm_pipeline.networks import Conditioning, ModelFacts, ValueScale, set_facts

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


def save_told(folder: Path, **known: object) -> None:
    unet = make_tiny_unet(2, out_channels=1, class_embed_type="identity")
    told = {"columns": ("x", "y"), "low": (0.0, 0.0), "high": (1.0, 2.0), "trains_null": True}
    conditioning = Conditioning(channels=1, sides=(4, 4), **told | known)
    set_facts(unet, ModelFacts(conditioning=conditioning.to_dict()))
    DDPMPipeline(unet, DDPMScheduler(100)).save_pretrained(folder / "told")
    for i, pixels in enumerate(PIXELS):
        Image.fromarray(pixels[:4, :4]).save(folder / f"low{i}.png")


NUMBERS = ["--condition_numbers", "0.5", "1.5"]


@pytest.mark.parametrize(
    "task",
    [
        ["vary", "--strength", "1", "--num_results", "2"],
        ["inpaint", "--mask", "mask.png", "--num_results", "2", "--iterations", "1"],
        ["restore", "--noise_std", "0.1", "--num_results", "2", "--method", "dps"],
        ["invert"],
    ],
    ids=lambda task: task[0],
)
def test_results_have_the_condition_of_their_image(places: Path, task: list[str]) -> None:
    """Each alone, with its own, is what both are together; at strength 1 it is a plain sample."""
    save_told(places)
    common = ["edit", "told", "--task", *task, *NUMBERS, "--guidance_scale", "2", *STEPS]

    def results(folder: str, images: str, low: str) -> list[np.ndarray]:
        names = [*(f"{i}.png" for i in images), "--condition", *(f"low{i}.png" for i in low)]
        assert main([*common, "--image", *names, "--output", folder]) == 0
        return [pixels_of(path) for path in sorted((places / folder).glob("0*.png"))]

    both, first, other = results("1", "ab", "01"), results("2", "a", "0"), results("3", "a", "1")
    assert len(both) == 2 * len(first)
    for found, expected in zip(both, first, strict=False):
        assert np.abs(found.astype(int) - expected).max() <= 1
    if task == ["invert"]:  # which comes back to the image by any condition, from other noise
        first, other = ([np.load(places / name / "noise.npy")] for name in "23")
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    if task[0] == "vary":
        pipe = DDPMPipeline.from_pretrained("told")
        drawn = pipe(
            batch_size=1,
            generator=[stream_generator("edits", 0, 0)],
            num_inference_steps=3,
            guidance_scale=2.0,
            condition={"vector": [0.5, 1.5], "image": Image.open("low0.png")},
        ).images[0]
        assert np.abs(np.asarray(drawn).astype(int) - first[0]).max() <= 1


def test_a_walk_has_one_condition(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_told(places)
    walk = ["edit", "told", "--task", "interpolate", "--image", "a.png", "b.png", *NUMBERS, *STEPS]
    assert main([*walk, "--condition", "low0.png", "--num_results", "2"]) == 0
    ends = [pixels_of(places / f"edited/00000{i}.png") for i in range(2)]
    assert all(np.abs(a.astype(int) - b).max() <= 3 for a, b in zip(ends, PIXELS, strict=True))
    with pytest.raises(SystemExit, match="2"):
        main([*walk, "--condition", "low0.png", "low1.png", "--output", "no"])
    said = "--condition must name one file for all results, got 2"
    assert said in capsys.readouterr().err


def test_ends_of_a_walk_have_their_own_conditions(places: Path) -> None:
    save_told(places)
    pipe = DDPMPipeline.from_pretrained("told")
    low = np.stack([PIXELS[i % 2][:4, :4] for i in range(3)])[..., None]
    vector = [[0.5, 1.5], [0.2, 0.4], [0.1, 0.3]]
    images = [Image.fromarray(pixels) for pixels in PIXELS]
    how = {"num_inference_steps": 3, "output_type": "np"}
    found = pipe.interpolate(*images, 3, condition={"vector": vector, "image": low}, **how).images
    for end, pixels in ((0, PIXELS[0]), (2, PIXELS[1])):
        assert np.abs(found[end, ..., 0] - pixels / 255).max() < 0.01
    with pytest.raises(ValueError, match="condition must be one or n=4 of them, got 3"):
        pipe.interpolate(*images, 4, condition={"vector": vector, "image": low}, **how)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (NUMBERS, "--condition must be given: the model is conditioned on x 0 … 1, y 0 … 2"),
        (["--condition", "low0.png"], "--condition_numbers must be given: the model is"),
        ([*NUMBERS[:2], "--condition", "low0.png"], "must be 2 numbers, got 1"),
        ([*NUMBERS, "--condition", "gone.png"], "condition='gone.png' does not exist"),
        ([*NUMBERS, "--condition", *["low0.png"] * 3], "for all results, got 3"),
    ],
)
def test_conditions_that_do_not_fit_are_refused_before_the_model_is_loaded(
    places: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    save_told(places)
    for weights in (places / "told" / "unet").glob("*.safetensors"):
        weights.unlink()
    try:
        code = main(["edit", "told", "--task", "vary", "--image", "a.png", *options, *STEPS])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (places / "edited").exists()


def test_pictures_are_no_exact_values(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scale = ValueScale("uint16", (2047.5,), (2047.5,), 0, 4095, 1)
    save_told(places, values=scale.to_dict())
    options = [*NUMBERS, "--condition", "low0.png", *STEPS]
    assert main(["edit", "told", "--task", "vary", "--image", "a.png", *options]) == 2
    assert "--condition must be values of exact uint16, which" in capsys.readouterr().err
