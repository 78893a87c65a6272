"""Our results stay on a card for as long as the weights do, and no longer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.cards import REPO, retrain
from huggingface_hub import ModelCard

from ddpm_pipeline.cards.card import renew_card


def test_numbers_of_other_weights_are_left_out_and_taken_off(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = renew_card(run, repo_id=REPO)
    retrain(run)
    text = renew_card(run, repo_id=REPO, existing=card)
    assert ModelCard(text).data.eval_results is None
    assert "## Results" not in text
    assert "## Fewer steps" not in text
    for name in ("evaluation.json", "bound.json", "calibration.json"):
        assert f"{name} is left out of the card: it is of other weights" in caplog.text


def test_numbers_stay_with_their_weights_where_the_reports_are_not_at_hand(run: Path) -> None:
    card = renew_card(run, repo_id=REPO)
    for name in ("evaluation.json", "bound.json", "calibration.json", "training_config.json"):
        (run / name).unlink()
    (run / "samples.png").unlink()
    shutil.rmtree(run / "samples")
    assert renew_card(run, repo_id=REPO, existing=card) == card
    alone = renew_card(run, repo_id=REPO)
    assert "## Results" not in alone
