"""Names that look the same are the same, and no others."""

from __future__ import annotations

import pytest

from ddpm_pipeline.common.likeness import normalized


@pytest.mark.parametrize(
    "names",
    [("caf\u00e9", "cafe\u0301"), ("a b", " a  b\t"), ("\u1100\u1161", "\uac00"), ("", "  ")],
)
def test_names_that_look_the_same(names: tuple[str, str]) -> None:
    one, other = map(normalized, names)
    assert one == other
    assert normalized(one) == one


def test_names_that_differ() -> None:
    names = ["cat", "Cat", "c at", "cat.", "cafe", "caf\u00e9", "\ufb01x", "fix", "1", "01"]
    assert len(set(map(normalized, names))) == len(names)
