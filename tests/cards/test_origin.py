"""What a model was trained from, and which average its weights are, on its card."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.cards import REPO
from huggingface_hub import ModelCard

from ddpm_pipeline.cards.card import renew_card
from ddpm_pipeline.cards.origin import base_metadata, origin_lines

ON_HUB = {"name": "alice/shapes_1", "hub": True, "revision": "v1"}
AVERAGE = {"sigma_rel": 0.15, "step": 1200, "profile_error": 0.031, "num_snapshots": 12}
TRIED = {"measured": "bits/dim", "tried": [{"sigma_rel": 0.05}, {"sigma_rel": 0.15}]}


def noted(run: Path, **more: object) -> None:
    path = run / "training_record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def test_a_base_on_the_hub_is_what_the_hub_reads_and_a_sentence(run: Path) -> None:
    noted(run, base=ON_HUB)
    text = renew_card(run, repo_id=REPO)
    data = ModelCard(text).data
    assert data.base_model == "alice/shapes_1"
    assert data.to_dict()["base_model_relation"] == "finetune"
    assert "started from the weights of alice/shapes\\_1 at v1 on the Hub." in text
    assert renew_card(run, repo_id=REPO, existing=text) == text


def test_what_the_owner_says_of_the_base_stays(run: Path) -> None:
    noted(run, base=ON_HUB)
    text = renew_card(run, repo_id=REPO, existing="---\nbase_model: bob/other\n---\n")
    assert ModelCard(text).data.base_model == "bob/other"


def test_a_base_of_a_disk_is_a_sentence_alone(run: Path) -> None:
    noted(run, base={"name": "photos", "hub": False})
    text = renew_card(run, repo_id=REPO)
    assert ModelCard(text).data.base_model is None
    assert "started from the weights of another model, photos, which is not on the Hub." in text


def test_an_average_says_which_and_how_it_was_chosen(run: Path) -> None:
    (run / "average.json").write_text(json.dumps(AVERAGE | TRIED))
    assert (
        "The weights are the average of σ\\_rel = 0.15 at update 1,200, made after the run of 12 "
        "snapshots (profile within 0.031); of 0.05, 0.15 it was the best by bits/dim."
    ) in renew_card(run, repo_id=REPO)


def test_other_records_say_nothing() -> None:
    for record in (None, {}, {"base": "alice/shapes"}, {"base": {"name": None, "hub": True}}):
        assert (base_metadata(record), origin_lines(record, None)) == ({}, [])
