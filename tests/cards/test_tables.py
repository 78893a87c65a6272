"""Tables never stand without what their numbers depend on."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_the_split_is_named(run: Path) -> None:
    bound = json.loads((run / "bound.json").read_text())
    bound["data"] |= {"name": "ylecun/mnist", "split": "test"}
    (run / "bound.json").write_text(json.dumps(bound))
    text = renew_card(run, repo_id=REPO)
    (result,) = [r for r in results_on(text) if r.dataset_split]
    assert (result.dataset_type, result.dataset_split) == ("ylecun/mnist", "test")
    assert "12 images of ylecun/mnist, split test;" in text
