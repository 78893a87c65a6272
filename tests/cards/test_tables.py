"""Tables never stand without what their numbers depend on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.cards import REPO, results_on

from ddpm_pipeline.cards.card import renew_card


def test_a_table_never_stands_without_its_circumstances(run: Path) -> None:
    text = renew_card(run, repo_id=REPO)
    for words in ("20 samples against 40 images of images.npy", "K = 4, eta = 0; seed 5"):
        assert words in text
    for words in (
        "features means.py (4 dimensions;",
        "12 images of images.npy",
        "± is the standard",
    ):
        assert words in text
    assert "8 timesteps per image, drawn by rate" in text
    assert "from 40 forward passes over 40 images of images.npy; seed 0" in text
    assert "biased upwards" in text
    bound = json.loads((run / "bound.json").read_text())
    assert f"{bound['bits_per_dim']:.4g} ± {bound['standard_error']:.2g}" in text
    # Each table follows a sentence that ends in a colon.
    lines = text.splitlines()
    heads = [i for i, line in enumerate(lines) if set(line) == set("| -")]
    assert len(heads) == 3
    assert all(lines[i - 2 : i - 1] == [""] and lines[i - 3].endswith(":") for i in heads)


@pytest.mark.parametrize(
    ("overlap", "words"),
    [
        ({"images": 40, "train": 40, "validation": None}, " (40 of them training images);"),
        ({"images": 40, "train": 0, "validation": 40}, " (0 of them training images);"),
        ({"images": 40, "train": None, "validation": None}, " (whether it was trained on them"),
        (None, ";"),
        ("edited", ";"),
    ],
)
def test_distances_say_how_many_images_are_training_images(
    run: Path, overlap: object, words: str
) -> None:
    report = json.loads((run / "evaluation.json").read_text())
    assert report["reference_overlap"] == {"images": 40, "train": 40, "validation": None}
    (run / "evaluation.json").write_text(json.dumps(report | {"reference_overlap": overlap}))
    text = renew_card(run, repo_id=REPO)
    assert f"against 40 images of images.npy{words}" in text
    assert "40 of these 40 images (100%) that samples were compared with are training" in text


def test_the_split_is_named(run: Path) -> None:
    bound = json.loads((run / "bound.json").read_text())
    bound["data"] |= {"name": "ylecun/mnist", "split": "test"}
    (run / "bound.json").write_text(json.dumps(bound))
    text = renew_card(run, repo_id=REPO)
    (result,) = [r for r in results_on(text) if r.dataset_split]
    assert (result.dataset_type, result.dataset_split) == ("ylecun/mnist", "test")
    assert "12 images of ylecun/mnist, split test;" in text
