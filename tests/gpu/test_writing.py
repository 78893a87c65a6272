from __future__ import annotations

import json
from pathlib import Path

from gpu.plan import Item
from gpu.writing import write

FIRST = Item("first", "checks.any", 1, "what is first")
OTHER = Item("other", "benchmarks.any", 1, "what is other", "training")


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))["items"]


def test_a_second_run_replaces_its_own_items_alone(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    found = {"verdict": "holds", "figure": "1", "seconds": 2.0, "usable": True}
    path = write(folder, FIRST, found, {"gpu": "one", "commit": "a"})
    assert path == folder / "gpu_checks.json"
    write(folder, OTHER, found, {"gpu": "one", "commit": "a"})
    second = Item("second", "checks.any", 1, "what is second")
    write(folder, second, {**found, "verdict": "misses"}, {"gpu": "two", "commit": "b"})
    assert sorted(file.name for file in folder.iterdir()) == [
        "gpu_checks.json",
        "gpu_training.json",
    ]
    items = read(path)
    assert {name: (item["verdict"], item["gpu"]) for name, item in items.items()} == {
        "first": ("holds", "one"),
        "second": ("misses", "two"),
    }
    assert items["first"]["what"] == "what is first"
    assert "usable" not in items["first"]
