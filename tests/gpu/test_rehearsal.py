"""Every item runs on a CPU with tiny sizes, so that no minute on a GPU goes into a slip."""

from __future__ import annotations

import pytest
from gpu.plan import PLAN, Item
from gpu.watching import Worker


@pytest.mark.parametrize("item", PLAN, ids=lambda item: item.name)
def test_the_item_runs_on_a_cpu(item: Item, rehearsing: Worker) -> None:
    found = rehearsing.ask(item.name, 100)
    assert found["verdict"] in {"holds", "measured", "not built"}, found.get("error", found)
    assert found["usable"]
    assert all(len(row) == len(found["columns"]) for row in found["rows"])
