import json
from pathlib import Path

import gpu_page
import pytest
from benchmarks import results
from gpu.plan import PLAN, Item
from gpu.writing import write


def test_the_page_is_what_the_results_say() -> None:
    written = (results.DOCS / "benchmarks.md").read_text(encoding="utf-8")
    assert written == results.page(), "run python tests/benchmarks/results.py"


def test_every_result_is_on_the_page_and_says_where_it_comes_from() -> None:
    names = {name for chapter in results.SECTIONS.values() for name in chapter}
    files = {file.stem: file for file in sorted(results.FOLDER.glob("*.json"))}
    assert files.keys() <= names | gpu_page.FILES.keys()
    for name in files.keys() & names:
        found = json.loads(files[name].read_text(encoding="utf-8"))
        assert found["command"]
        assert found["versions"]["torch"]
        assert all(len(row) == len(found["columns"]) for row in found["rows"])
        if found["picture"]:
            assert (results.DOCS / found["picture"]).is_file()


def test_a_result_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="name must be one of those in SECTIONS, got 'other'"):
        results.record("other", title="", command="")


# What `make gpu` writes.


def test_the_chapter_on_gpus_says_that_nothing_was_run_yet(tmp_path: Path) -> None:
    assert "Not run on a GPU yet" in gpu_page.chapter(tmp_path)


def test_the_chapter_on_gpus_has_every_item_with_its_table_and_origin(tmp_path: Path) -> None:
    about = {"gpu": "a GPU", "driver": "1.2", "cores": 16, "commit": "abc", "versions": {}}
    found = {"verdict": "misses", "figure": "ratio: 7 (≥ 8)", "seconds": 3.5, "bounds": []}
    speeds = {**found, "columns": ["loop", "images/s"], "rows": [["ours", 12345.6]]}
    checked = Item("some_check", "checks.any", 1, "something")
    measured = Item("some_speed", "benchmarks.any", 1, "speed", "training")
    write(tmp_path, checked, {**found, "columns": [], "rows": []}, about)
    write(tmp_path, measured, speeds, about | {"versions": {"torch": "2.11.0"}})
    text = gpu_page.chapter(tmp_path)
    assert "Not run" not in text
    assert "| `some_check` | something | misses | ratio: 7 (≥ 8) | 3.5 |" in text
    assert "| ours | 12,346 |" in text
    assert "a GPU, driver 1.2, 16 cores; torch 2.11.0; commit abc." in text


def test_every_item_has_a_place_on_the_page() -> None:
    assert {f"gpu_{item.file}" for item in PLAN} <= gpu_page.FILES.keys()
