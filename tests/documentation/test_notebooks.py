"""The notebooks of the documentation run: here with tiny sizes, in `make docs` with their own."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import DOCS
from helpers.snippets import cells, imported, unknown_keywords

NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.md"))
# What takes the place of each notebook's own parameters.
TINY = {
    "train_on_your_folder": {"NUM_PICTURES": 20, "UPDATES": 2, "STEPS": 2},
    "measure_and_calibrate": {"UPDATES": 2, "FORWARDS": 1000, "TIMESTEPS": 1, "FEW": 2},
    "edit_pictures": {"NUM_PICTURES": 20, "UPDATES": 2, "STEPS": 2},
}
# What is there when a notebook has run.
LEFT = {
    "train_on_your_folder": ["model/model_index.json", "model/metrics.jsonl"],
    "measure_and_calibrate": ["model/bound.json", "model/scores.csv", "model/calibration.json"],
    "edit_pictures": ["model/model_index.json"],
}


def name_of(path: Path) -> str:
    return path.stem


def run(notebook: Path) -> dict[str, Any]:
    """Run all cells in this folder, with tiny parameters, and give the names that they leave."""
    names: dict[str, Any] = {}
    for is_parameters, code in cells(notebook):
        exec(compile(code, notebook.name, "exec"), names)
        if is_parameters:
            assert TINY[notebook.stem].keys() <= names.keys()
            names |= TINY[notebook.stem]
    return names


def test_every_notebook_is_known_here() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(TINY)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
def test_a_notebook_is_one_for_myst_with_one_cell_of_parameters(notebook: Path) -> None:
    head = notebook.read_text(encoding="utf-8").split("---\n")[1]
    assert "file_format: mystnb" in head
    assert "name: python3" in head
    (parameters,) = [code for is_parameters, code in cells(notebook) if is_parameters]
    assigned = [node.targets[0].id for node in ast.parse(parameters).body]
    assert sorted(assigned) == sorted(TINY[notebook.stem])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
def test_a_notebook_names_only_what_is_there(notebook: Path) -> None:
    trees = [ast.parse(code) for _, code in cells(notebook)]
    own = imported(trees)
    assert len(own) >= 3
    assert unknown_keywords(trees, own) == set()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
def test_a_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("IPython", reason="comes with the extra docs")
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    monkeypatch.chdir(tmp_path)
    run(notebook)
    assert [name for name in LEFT[notebook.stem] if not (tmp_path / name).exists()] == []
