import json

import pytest
from benchmarks import results


def test_the_page_is_what_the_results_say() -> None:
    written = (results.DOCS / "benchmarks.md").read_text(encoding="utf-8")
    assert written == results.page(), "run python tests/benchmarks/results.py"


def test_every_result_is_on_the_page_and_says_where_it_comes_from() -> None:
    names = {name for chapter in results.SECTIONS.values() for name in chapter}
    files = sorted(results.FOLDER.glob("*.json"))
    assert {file.stem for file in files} <= names
    for file in files:
        found = json.loads(file.read_text(encoding="utf-8"))
        assert found["command"]
        assert found["versions"]["torch"]
        assert all(len(row) == len(found["columns"]) for row in found["rows"])
        if found["picture"]:
            assert (results.DOCS / found["picture"]).is_file()


def test_a_result_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="name must be one of those in SECTIONS, got 'other'"):
        results.record("other", title="", command="")
