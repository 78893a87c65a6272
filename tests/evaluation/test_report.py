"""The record of an evaluation as a table and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ddpm_pipeline.evaluation.report import EvaluationReport

REPORT = EvaluationReport(
    frechet_distance=12.3456,
    kid=0.001234,
    kid_standard_error=0.00056,
    precision=0.51249,
    recall=0.25,
    bound={
        "bits_per_dim": 3.14159,
        "standard_error": 0.0123,
        "num_images": 1256,
        "data": "photos",
        "split": "test",
    },
    seconds_per_image=0.01234,
    num_images=10_000,
    num_reference=60_000,
    num_kept=5_000,
    kid_subsets=10,
    neighbors=3,
    features="SmallFeatures 64",
    feature_dim=64,
    resize="none",
    reference="0123",
    reference_data="photos",
    reference_split=None,
    reference_changes={},
    reference_overlap={"images": 60_000, "train": 54_000, "validation": 6_000},
    sampler={"scheduler": "DDIMScheduler", "num_inference_steps": 50, "eta": 0.5, "seed": 7},
    nearest=[],
    device="cpu",
    versions={"torch": "2"},
    warnings=["few images"],
)


def rows(report: EvaluationReport) -> dict[str, str]:
    """The lines of its table by their first words."""
    return dict(line.split("  ", 1) for line in report.table().splitlines() if "  " in line)


def test_the_table_has_every_number_with_what_it_depends_on() -> None:
    table = {key: value.strip() for key, value in rows(REPORT).items()}
    assert table == {
        "Fréchet distance": "12.35",
        "KID": "0.00123 ± 0.00056",
        "precision": "0.512",
        "recall": "0.250",
        "bits/dim": "3.142 ± 0.012 on 1,256 images of photos test",
        "seconds per image": "0.0123",
        "images": "10,000 against 60,000",
        "features": "SmallFeatures 64, 64 dimensions",
        "resize": "none",
        "sampler": "DDIMScheduler, K = 50, eta = 0.5, seed 7",
        "reference": "54,000 training images, 6,000 of validation",
    }
    assert REPORT.table().splitlines()[-1] == "warning: few images"


def test_only_inceptions_features_make_it_fid() -> None:
    report = replace(REPORT, features="Inception-v3 2048 (torch-fidelity, FID's own weights)")
    assert "FID" in rows(report)
    assert "Fréchet distance" not in rows(report)


@pytest.mark.parametrize(
    ("train", "validation", "text"),
    [
        (None, None, "could not be checked for training images"),
        (0, None, "0 training images"),
        (1234, 0, "1,234 training images, 0 of validation"),
    ],
)
def test_the_table_says_what_the_model_met_before(
    train: int | None, validation: int | None, text: str
) -> None:
    overlap = {"images": 60_000, "train": train, "validation": validation}
    assert rows(replace(REPORT, reference_overlap=overlap))["reference"].strip() == text


@pytest.mark.parametrize(
    ("field", "row"),
    [
        ("bound", "bits/dim"),
        ("seconds_per_image", "seconds per image"),
        ("reference_overlap", "reference"),
    ],
)
def test_what_was_not_measured_has_no_row(field: str, row: str) -> None:
    assert row not in rows(replace(REPORT, **{field: None}))


def test_samplers_without_eta_and_of_other_programs() -> None:
    plain = replace(REPORT, sampler=REPORT.sampler | {"eta": None})
    assert rows(plain)["sampler"].strip() == "DDIMScheduler, K = 50, seed 7"
    assert rows(replace(REPORT, sampler={}))["sampler"].strip() == "unknown"


def test_values_begin_in_one_column() -> None:
    lines = [line for line in REPORT.table().splitlines() if not line.startswith("warning")]
    starts = {len(line) - len(line.split("  ", 1)[1].lstrip()) for line in lines}
    assert len(starts) == 1


def test_a_report_is_json() -> None:
    assert EvaluationReport(**json.loads(json.dumps(REPORT.to_dict()))) == REPORT
