"""What a run measured of its samples, and which weights it kept, on its card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.cards import REPO

from ddpm_pipeline.cards.card import renew_card
from ddpm_pipeline.cards.measured import measured_lines

KEPT = {"step": 1200, "by": "bound", "value": 3.5, "measurements": 9}
DISTANCES = {
    "distance": 12.25,
    "distance_of_real": 1.5,
    "kid": 0.125,
    "kid_standard_error": 0.01,
    "copied_share": 0.5,
    "copied_share_standard_error": 0.1,
    "copied_p_value": 0.0001,
}


def test_the_card_says_which_weights_were_kept_and_what_was_measured(run: Path) -> None:
    path = run / "training_record.json"
    record = json.loads(path.read_text()) | {"kept": KEPT, "distances": DISTANCES}
    path.write_text(json.dumps(record))
    text = renew_card(run, repo_id=REPO)
    assert (
        "those after update 1,200, the best by the bits/dim of held-out images (3.5) of 9" in text
    )
    assert (
        "Last measured while training: Fréchet distance 12.25, biased upwards as of few samples "
        "(1.5 for as many real held-out images); KID 0.125 ± 0.01; share drawn to training images "
        "0.50 ± 0.1 (p = 0.0001)."
    ) in text


@pytest.mark.parametrize("record", [{}, {"kept": None}, {"kept": "edited", "distances": 3}])
def test_a_record_without_them_says_nothing(record: dict[str, object]) -> None:
    assert measured_lines(record) == []


def test_an_edited_record_does_not_change_the_page() -> None:
    (line,) = measured_lines({"kept": KEPT | {"by": "<b>x</b>\n# y", "step": "| a"}})
    assert "<b>" not in line
    assert "\n" not in line
