"""Bytes are joined with their header and their source only if they belong together."""

from __future__ import annotations

import numpy as np
import pytest

from ddpm_pipeline.data.inspection import Inspection
from ddpm_pipeline.data.prepared import Pixels, describe_unreadable, pixels_of
from ddpm_pipeline.data.sources.source import Source


def test_reports_of_unreadable_images() -> None:
    assert describe_unreadable(1, 9, ["x (cut)"]) == "1 of 9 images cannot be read: x (cut)"
    assert describe_unreadable(3, 9, ["x", "y"]) == "3 of 9 images cannot be read: x; y, ..."


HEADER = {"channels": 1, "fingerprint": "f", "dropped": [], "errors": [], "changes": {}}


def joined(values: np.ndarray, header: dict[str, object], length: int = 4) -> Pixels:
    """With a source whose first image has no header; of the others the second is cut."""
    source = Source(length, lambda _: b"", lambda i: f"{i}.png", None)
    undecodable = {"undecodable": [[1, "cut"]]}
    return pixels_of(values, HEADER | header | undecodable, source, Inspection({0: "empty"}))


def test_bytes_and_their_header_are_joined() -> None:
    values = np.arange(8, dtype=np.uint8)
    square = joined(values, {"shape": [2, 1, 2, 2], "sizes": None})
    assert square.values.tolist() == [[[[0, 1], [2, 3]]], [[[4, 5], [6, 7]]]]
    assert (square.sizes, square.dropped) == (None, (0, 2))
    assert square.errors == ("0.png (empty)", "2.png (cut)")
    values = np.arange(10, dtype=np.uint8)
    flexible = joined(values, {"shape": None, "sizes": [[2, 2], [2, 3]]})
    assert flexible.values.tolist() == list(range(10))
    assert flexible.sizes.tolist() == [[2, 2], [2, 3]]


@pytest.mark.parametrize("count", [0, 7, 9])
@pytest.mark.parametrize(
    "layout", [{"shape": [2, 1, 2, 2], "sizes": None}, {"shape": None, "sizes": [[2, 2], [2, 2]]}]
)
def test_another_number_of_bytes_is_refused(count: int, layout: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"holds {count} bytes, not what its header says"):
        joined(np.zeros(count, np.uint8), layout)


@pytest.mark.parametrize("length", [2, 3, 5])
def test_another_number_of_images_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="holds 2 images, not those of the source"):
        joined(np.zeros(8, np.uint8), {"shape": [2, 1, 2, 2], "sizes": None}, length)
