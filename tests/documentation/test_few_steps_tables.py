"""The tables of tests/benchmarks/few_steps.py: which of many rows they show, beside what."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from benchmarks.few_steps_tables import Row, columns_of, how_spaced, show, table


def row(sampler: str, calls: int, distance: float, **changed: object) -> Row:
    values = {"model": "v", "spacing": "trailing", "images": 5000, "seconds": 1.0, "key": "k"}
    return Row(sampler=sampler, calls=calls, distance=distance, **values | changed)


ROWS = [
    row("UniPC", 5, 30.0, images=250),
    row("UniPC", 5, 25.0, images=250, spacing="linspace"),
    row("UniPC", 5, 20.0, spacing="linspace"),
    row("DDIM", 5, 40.0),
    row("multistep", 5, 10.0, spacing="optimal_samples"),
    row("multistep", 8, 9.0, spacing="optimal_samples"),
    row("DEIS", 8, float("inf"), failure="ValueError: alpha_bar is 0"),
    row("UniPC", 8, 3.0, images=250),
]


def test_a_table_has_a_row_for_each_sampler_and_a_ratio_to_the_best_of_stock() -> None:
    assert columns_of(ROWS) == ["model", "sampler", "images", "5", "8"]
    assert table(ROWS) == [
        ["v", "multistep", 5000, 10.0, 9.0],
        ["v", "UniPC", 250, "", 3.0],
        ["v", "UniPC", 5000, 20.0, ""],
        ["v", "DEIS", 5000, "", "fails"],
        ["v", "DDIM", 5000, 40.0, ""],
        ["v", "multistep ÷ best of stock", "", 0.5, ""],  # none of as many images at 8
    ]


def test_rivals_of_fewer_images_stand_beside_as_many_of_ours() -> None:
    rows = [
        row("multistep", 5, 10.0, images=5000),
        row("multistep", 5, 11.0, images=512),
        row("multistep", 5, 12.0, images=100),
        row("UniPC", 5, 20.0, images=5000),
        row("DDIM", 5, 40.0, images=512),
    ]
    assert table(rows) == [
        ["v", "multistep", 512, 11.0],
        ["v", "multistep", 5000, 10.0],
        ["v", "UniPC", 5000, 20.0],
        ["v", "DDIM", 512, 40.0],
        ["v", "multistep ÷ best of stock", "", 0.5],
    ]


def test_the_page_says_how_stocks_spacings_were_found() -> None:
    assert how_spaced(ROWS) == (
        "Each of stock's schedulers is on the best of its spacings `trailing`, `linspace` for "
        "these calls, by 250 images."
    )
    assert how_spaced(ROWS[3:]) == "Stock's schedulers are on `trailing` steps."


def test_what_was_kept_is_shown_without_touching_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCHMARKS_RECORD", "0")
    kept = [Row(**json.loads(json.dumps(asdict(each)))) for each in ROWS]
    show(kept, tmp_path, tmp_path / "docs")
    text = (tmp_path / "few_steps.md").read_text(encoding="utf-8")
    assert "| v | DEIS | 5000 |  | fails |" in text
    assert text.endswith("Best on another spacing than trailing: UniPC linspace (v, 5).\n")
    assert (tmp_path / "few_steps.png").stat().st_size > 10_000
    assert not (tmp_path / "docs").exists()
