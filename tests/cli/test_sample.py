"""``ddpm sample``: pictures, files and arrays, and the outputs that it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.command_lines import error_of, tiny_options
from PIL import Image

from ddpm_pipeline.cli.commands import main
from ddpm_pipeline.cli.sample import PICTURE_SUFFIXES


def test_training_and_sampling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *tiny_options(tmp_path)]) == 0
    assert "model after 2 steps" in capsys.readouterr().out
    model = str(tmp_path / "run")
    grid = tmp_path / "new" / "grid.png"
    draw = ["--num_images", "5", "--num_inference_steps", "2", "--batch_size", "2"]
    assert main(["sample", model, *draw, "--output", str(grid)]) == 0
    assert capsys.readouterr().out.strip() == str(grid)
    with Image.open(grid) as image:
        assert image.size == (28, 19)  # three columns, two rows
        pixels = np.asarray(image)
    before = grid.read_bytes()
    with pytest.raises(SystemExit, match="2"):
        main(["sample", model, *draw, "--seed", "9", "--output", str(grid)])
    assert f"--output {str(grid)!r} exists; --overwrite replaces it" in capsys.readouterr().err
    assert grid.read_bytes() == before
    again = ["--seed", "9", "--overwrite", "--output", str(grid)]
    assert main(["sample", model, *draw, *again]) == 0
    assert grid.read_bytes() != before
    assert main(["sample", "--model", model, *draw, "--output", str(tmp_path / "each")]) == 0
    for i in range(5):
        y, x = 1 + i // 3 * 9, 1 + i % 3 * 9
        with Image.open(tmp_path / "each" / f"{i:06d}.png") as image:
            assert np.array_equal(pixels[y : y + 8, x : x + 8], np.asarray(image))


def test_a_picture_is_what_pillow_writes() -> None:
    suffixes = {s for s, kind in Image.registered_extensions().items() if kind in Image.SAVE}
    known = set(PICTURE_SUFFIXES.split())
    assert suffixes <= known
    assert known - suffixes <= {".avif", ".avifs", ".webp"}  # which a build of Pillow may lack


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("there.png", "--output 'there.png' exists; --overwrite replaces it"),
        ("there.npz", "output 'there.npz' exists and was not made by sample_images"),
        ("full", "output 'full' is not empty and was not made by sample_images"),
        ("there.txt", "output='there.txt' cannot be written"),
        ("there.txt/a.png", "output='there.txt/a.png' cannot be written"),
        ("folder.png", "output='folder.png' must be a file"),
    ],
)
def test_an_output_that_cannot_be_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    output: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("model", "full", "folder.png"):
        (tmp_path / folder).mkdir()
    for file in ("model/model_index.json", "full/mine", "there.png", "there.npz", "there.txt"):
        (tmp_path / file).write_text("{}")
    code, printed = error_of(capsys, "sample", "model", "--output", output)
    assert code == 2
    assert said in printed
