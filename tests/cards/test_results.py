"""Every number is its report's, with its circumstances, and of the folder's weights."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from helpers.cards import REPO, results_on
from huggingface_hub import ModelCard

from ddpm_pipeline.cards.card import renew_card


def test_every_number_is_the_reports_and_says_how_it_was_obtained(run: Path) -> None:
    text = renew_card(run, repo_id=REPO)
    evaluation = json.loads((run / "evaluation.json").read_text())
    bound = json.loads((run / "bound.json").read_text())
    found = {(r.metric_args["measured_with"], r.metric_type): r for r in results_on(text)}
    values = {key: result.metric_value for key, result in found.items()}
    assert values == {
        ("ddpm evaluate", "frechet_distance"): evaluation["frechet_distance"],
        ("ddpm evaluate", "kid"): evaluation["kid"],
        ("ddpm evaluate", "precision"): evaluation["precision"],
        ("ddpm evaluate", "recall"): evaluation["recall"],
        ("ddpm evaluate", "bits_per_dim"): evaluation["bound"]["bits_per_dim"],
        ("ddpm bound", "bits_per_dim"): bound["bits_per_dim"],
    }
    always = {"num_images", "seed", "weights", "versions"}
    for (_, kind), result in found.items():
        needed = always | (
            {"standard_error", "decoder", "num_inference_steps", "variance_type", "estimator"}
            if kind == "bits_per_dim"
            else {"num_reference_images", "reference_fingerprint", "features", "resize", "sampler"}
            | {"num_inference_steps"}
        )
        assert needed <= result.metric_args.keys()
        assert result.dataset_name == "images.npy"
    kid = found["ddpm evaluate", "kid"].metric_args
    assert (kid["seed"], kid["num_inference_steps"], kid["eta"]) == (5, 4, 0.0)
    assert kid["standard_error"] == evaluation["kid_standard_error"]


@pytest.mark.parametrize("missing", ["reference", "sampler", "num_images", "features"])
def test_a_number_without_provenance_is_left_out(
    run: Path, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    report = json.loads((run / "evaluation.json").read_text())
    del report[missing]
    (run / "evaluation.json").write_text(json.dumps(report))
    found = results_on(renew_card(run, repo_id=REPO))
    assert [r.metric_args["measured_with"] for r in found] == ["ddpm bound"]
    assert f"evaluation.json is left out of the card: it does not say '{missing}'" in caplog.text


def test_samples_of_another_program_and_numbers_that_are_none_are_left_out(run: Path) -> None:
    report = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps({**report, "sampler": {}}))
    bound = json.loads((run / "bound.json").read_text())
    (run / "bound.json").write_text(json.dumps({**bound, "bits_per_dim": math.nan}))
    assert ModelCard(renew_card(run, repo_id=REPO)).data.eval_results is None
    (run / "bound.json").write_text("{")
    assert "## Results" not in renew_card(run, repo_id=REPO)
