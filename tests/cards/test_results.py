"""Every number is its report's, with its circumstances, and of the folder's weights."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from helpers.cards import REPO, results_on
from huggingface_hub import EvalResult, ModelCard

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
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


def test_the_seed_is_the_users(run: Path) -> None:
    bound = json.loads((run / "bound.json").read_text())
    assert (bound["seed"], bound["noise_seed"] > 0) == (0, True)
    (result,) = [r for r in results_on(renew_card(run, repo_id=REPO)) if is_bound(r)]
    assert result.metric_args["seed"] == 0
    (run / "bound.json").unlink()
    (result,) = [r for r in results_on(renew_card(run, repo_id=REPO)) if is_bound(r)]
    assert result.metric_args["seed"] == 5


def is_bound(result: EvalResult) -> bool:
    return result.metric_type == "bits_per_dim"


def change_scheduler(run: Path, **options: object) -> None:
    scheduler = DDPMPipeline.from_pretrained(run).scheduler
    DDPMScheduler.from_config(scheduler.config, **options).save_pretrained(run / "scheduler")


def test_the_one_bits_per_dim_is_that_of_the_model_as_pushed(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bound = json.loads((run / "bound.json").read_text())
    before = renew_card(run, repo_id=REPO)
    (shown,) = [r for r in results_on(before) if is_bound(r)]
    assert shown.metric_args["measured_with"] == "ddpm bound"
    assert "K = 20" not in before.partition("## Fewer steps")[2]  # T: another number for the chain

    # Fewer steps, and other decoders, are bounds too, but not the ones to compare models by.
    (run / "bound.json").write_text(json.dumps({**bound, "chain": bound["chain"][::2]}))
    (shown,) = [r for r in results_on(renew_card(run, repo_id=REPO)) if is_bound(r)]
    assert shown.metric_args["measured_with"] == "ddpm evaluate"
    (run / "bound.json").write_text(json.dumps(bound))

    # Other variances have another bound: neither that of the files nor the card's is shown.
    change_scheduler(run, variance_type="fixed_large")
    after = renew_card(run, repo_id=REPO, existing=before)
    assert not [r for r in results_on(after) if is_bound(r)]
    assert (
        "bits/dim of ddpm bound is left out of the card: it is of other variances" in caplog.text
    )
    (run / "bound.json").write_text(json.dumps({**bound, "variance_type": "fixed_large"}))
    (shown,) = [r for r in results_on(renew_card(run, repo_id=REPO)) if is_bound(r)]
    assert shown.metric_value == bound["bits_per_dim"]


def test_a_bits_per_dim_on_the_card_gives_way_to_a_newer_one(run: Path) -> None:
    bound = json.loads((run / "bound.json").read_text())
    before = renew_card(run, repo_id=REPO)
    bound["data"] |= {"name": "others"}
    (run / "bound.json").write_text(json.dumps(bound))
    (shown,) = [
        r for r in results_on(renew_card(run, repo_id=REPO, existing=before)) if is_bound(r)
    ]
    assert shown.dataset_name == "others"
    for name in ("bound.json", "evaluation.json"):
        (run / name).unlink()
    (shown,) = [
        r for r in results_on(renew_card(run, repo_id=REPO, existing=before)) if is_bound(r)
    ]
    assert shown.dataset_name == "images.npy"


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
