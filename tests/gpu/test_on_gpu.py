"""The same checks under pytest, where there is a GPU: ``pytest -m gpu tests/gpu``."""

from __future__ import annotations

import pytest
from gpu.plan import PLAN, Item
from gpu.watching import Worker

CHECKS = [item for item in PLAN if item.is_check]


@pytest.mark.gpu
@pytest.mark.timeout(400)
@pytest.mark.parametrize("item", CHECKS, ids=lambda item: item.name)
def test_the_check_holds(item: Item, on_gpu: Worker) -> None:
    found = on_gpu.ask(item.name, 2 * item.seconds)
    if found["verdict"] == "not built":
        pytest.skip(found["figure"])
    missed = [bound for bound in found["bounds"] if not bound["holds"]]
    assert missed == []
    assert found["verdict"] in {"holds", "measured"}, found.get("error", found)
