"""The demo in colour: its pictures are sorted from npm's package, and its figure shows them."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from helpers.paths import EXAMPLES
from PIL import Image

from ddpm_pipeline.data import open_images

if TYPE_CHECKING:
    from types import ModuleType

NAMES = {"Food & Drink": ("apple", "pear"), "Flags": ("un",), "Component": ("tone",)}


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import demo_colour

    return demo_colour


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """What the npm package is like: one image of each emoji, variants, and transparency."""
    folder = tmp_path / "made" / "package"
    images = folder / "img" / "google" / "64"
    images.mkdir(parents=True)
    listed = []
    for category, names in NAMES.items():
        for name in names:
            entry = {"category": category, "image": f"{name}.png"}
            if name == "apple":
                entry["skin_variations"] = {"1F3FB": {"image": "apple-light.png"}}
                Image.new("RGBA", (64, 64), (250, 200, 0, 255)).save(images / "apple-light.png")
            Image.new("RGBA", (64, 64), (200, 0, 0, 0)).save(images / f"{name}.png")
            listed.append(entry)
    (folder / "emoji.json").write_text(json.dumps(listed))
    return folder


def sorted_names(folder: Path) -> dict[str, list[str]]:
    return {each.name: sorted(p.stem for p in each.iterdir()) for each in folder.iterdir()}


def test_a_folder_for_each_category(demo: ModuleType, package: Path, tmp_path: Path) -> None:
    demo.save_emoji(package, tmp_path / "data", skin_tones=False)
    assert sorted_names(tmp_path / "data") == {"Food & Drink": ["apple", "pear"], "Flags": ["un"]}
    data = open_images(
        tmp_path / "data", resolution=32, background="white", cache_dir=tmp_path / "cache"
    )
    assert (np.asarray(data.pictures(range(3))) == 255).all()  # nothing but transparency


def test_variants_are_taken_if_asked_for(demo: ModuleType, package: Path, tmp_path: Path) -> None:
    demo.save_emoji(package, tmp_path / "data", skin_tones=True)
    assert sorted_names(tmp_path / "data")["Food & Drink"] == ["apple", "apple-light", "pear"]


def test_the_packed_file_gives_the_same(demo: ModuleType, package: Path, tmp_path: Path) -> None:
    packed = tmp_path / "emoji.tgz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(package, "package")
    demo.save_emoji(packed, tmp_path / "data", skin_tones=False)
    assert sorted_names(tmp_path / "data") == {"Food & Drink": ["apple", "pear"], "Flags": ["un"]}


def test_another_folder_is_refused_and_leaves_nothing(demo: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match=r"--package must be emoji-datasource-google@16.0.0"):
        demo.save_emoji(tmp_path / "photos", tmp_path / "data", skin_tones=False)
    (tmp_path / "torn.tgz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"--package must be a folder or a \.tgz file"):
        demo.save_emoji(tmp_path / "torn.tgz", tmp_path / "data", skin_tones=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", "torn.tgz"]


def test_without_npm_it_says_how_to_go_on(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"npm is not installed.*give it as --package"):
        demo.fetch_package(tmp_path / "run")


def test_a_package_that_does_not_exist_is_named(
    demo: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo_colour.py", "--package", "nowhere"])
    with pytest.raises(ValueError, match="--package nowhere does not exist"):
        demo.parse_options()


def test_the_picture_has_a_row_for_each_class(demo: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * 12, 32, 32, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    demo.save_picture(images, ["Flags", "Food & Drink"], "twelve of each", path)
    with Image.open(path) as picture:
        assert min(picture.size) >= 512
        shown = {tuple(pixel) for pixel in np.asarray(picture.convert("RGB")).reshape(-1, 3)}
    assert {tuple(image[16, 16]) for image in images} <= shown
