"""Figures and scores hold what the report says."""

from __future__ import annotations

import csv
import os
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_pipeline import BoundReport, DDPMScheduler, variational_bound
from ddpm_pipeline.likelihood.figures import (
    measured_rate_distortion,
    save_figure,
    save_scores,
    term_profile,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def toy(x_t: Tensor, t: Tensor) -> Tensor:
    return 0.9 * x_t


def report_of(count: int, **options: object) -> BoundReport:
    x_0 = torch.randint(256, (count, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    options |= {"generator": torch.Generator().manual_seed(0)}
    return variational_bound(toy, DDPMScheduler(100), x_0 * 2 / 255 - 1, **options)


def test_an_exact_profile_is_every_term() -> None:
    report = report_of(5)
    t, bits = term_profile(report)
    assert t.tolist() == list(report.chain[:-1])
    assert bits.tolist() == report.transitions.tolist()
    rate, distortion = measured_rate_distortion(report)
    np.testing.assert_allclose(rate, report.rate)
    np.testing.assert_allclose(distortion, report.distortion)


def test_an_estimated_profile_is_the_exact_one_smoothed() -> None:
    exact, some = report_of(400), report_of(400, num_timestep_samples=4)
    t, bits = term_profile(some)
    assert 5 < len(t) <= 400 * 4 / 50
    expected = np.interp(-t, -np.array(exact.chain[:-1]), exact.transitions)
    inner = slice(1, -1)
    np.testing.assert_allclose(bits[inner], expected[inner], rtol=0.4)
    rate, distortion = measured_rate_distortion(some)
    assert len(rate) == len(t) + 1
    np.testing.assert_allclose(
        distortion[inner], np.interp(rate[inner], exact.rate, exact.distortion), rtol=0.2
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_timestep_samples": 1},
        {"timesteps": [50]},
        {"timesteps": [50, 3], "decoder": "continuous"},
    ],
)
def test_a_figure_is_written_for_every_kind_of_report(tmp_path: Path, options: dict) -> None:
    save_figure(report_of(3, **options), tmp_path / "bound.png")
    with Image.open(tmp_path / "bound.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5


def test_a_figure_without_matplotlib_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install ddpm_pipeline\[eval\]"):
        save_figure(report_of(2), tmp_path / "bound.png")


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("@SUM(1+1)", "'@SUM(1+1)"),
        ("+1.png", "'+1.png"),
        ("-1.png", "'-1.png"),
        ("\t=1", r"\t=1"),
        ("a\nb\x1b[2J", r"a\nb\x1b[2J"),
        (os.fsdecode(b"\xff.png"), r"\xff.png"),
        ("a=b-c.png", "a=b-c.png"),
    ],
)
def test_a_name_is_text_in_a_spreadsheet(tmp_path: Path, name: str, cell: str) -> None:
    save_scores(report_of(1), tmp_path / "scores.csv", [name])
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [cell]


def test_scores_are_the_bound_of_each_image_and_its_parts(tmp_path: Path) -> None:
    report = report_of(3)
    save_scores(report, tmp_path / "scores.csv", ["a.png", "b, c.png", "d.png"])
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a.png", "b, c.png", "d.png"]
    assert [row["image"] for row in rows] == ["0", "1", "2"]
    for row, bits in zip(rows, report.per_example.tolist(), strict=True):
        parts = sum(float(row[part]) for part in ("prior", "transitions", "decoder"))
        assert float(row["bits_per_dim"]) == pytest.approx(bits, abs=1e-6)
        assert parts == pytest.approx(bits, abs=3e-6)
