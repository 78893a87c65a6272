"""The test of copying on a card: what it found, beside what, and nothing where it was not made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.cards import REPO, results_on

from ddpm_pipeline.cards.card import renew_card

FOUND = {
    "share": 0.83,
    "standard_error": 0.04,
    "p_value": 0.0001,
    "nearer": 0.9,
    "nearer_standard_error": 0.02,
    "nearer_p_value": 1e-9,
    "num_samples": 20,
    "num_train": 1400,
    "num_held_out": 60,
    "copies": True,
    "level": 0.01,
    "train_data": "photos",
    "train_split": "train",
    "train_fingerprint": "a",
    "held_out_data": "photos",
    "held_out_split": "test",
    "held_out_fingerprint": "b",
    "bound_gap": {"bits_per_dim": 0.25, "standard_error": 0.03, "p_value": 0.0, "num_images": 60},
    "worst": [],
    "warnings": ["only 9 of these 10 images"],
}


def card_with(run: Path, copying: object) -> str:
    report = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps(report | {"copying": copying}))
    return renew_card(run, repo_id=REPO)


def test_a_model_that_copies_is_said_to(run: Path) -> None:
    text = card_with(run, FOUND)
    for words in (
        "20 samples against 1,400 images of photos, split train; features means.py",
        (
            "| share drawn to training images | 0.83 ± 0.04 | "
            "**the model copies training images** (p = 0.0001; 0 is none, 1 is all), "
            "beside 60 held-out images of photos, split test; "
            "bits/dim of held-out images less those of training images: 0.25 ± 0.03 |"
        ),
        "- only 9 of these 10 images",
    ):
        assert words in text
    found = [result for result in results_on(text) if result.metric_type == "copied_share"]
    assert [result.metric_value for result in found] == [0.83]
    assert found[0].metric_args["p_value"] == 0.0001


def test_a_model_that_does_not_copy_is_said_not_to(run: Path) -> None:
    text = card_with(
        run, FOUND | {"share": -0.02, "p_value": 0.4, "copies": False, "bound_gap": None}
    )
    assert "-0.02 ± 0.04 | no copies found (p = 0.4;" in text
    assert "less those of training" not in text


@pytest.mark.parametrize("copying", [None, {"not_tested": "it takes held-out images"}])
def test_what_was_not_tested_is_not_on_the_card(run: Path, copying: object) -> None:
    assert "share drawn" not in card_with(run, copying)
