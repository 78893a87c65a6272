"""Parts that all sources share: their labels, and refusing what they cannot obey."""

from __future__ import annotations

import numpy as np
import pytest

from ddpm_pipeline.data.sources.source import encode_labels, one_line, refuse


def test_labels_as_strings_integers_or_neither() -> None:
    values, names = encode_labels(["dog", "cat", "dog"], None)
    assert (values.tolist(), names) == ([1, 0, 1], ("cat", "dog"))
    values, names = encode_labels([2, np.int64(0)], ["a", "b", "c"])
    assert (values.tolist(), values.dtype, names) == ([2, 0], np.int64, ("a", "b", "c"))
    with pytest.raises(ValueError, match="labels missing for 2 of 3 images"):
        encode_labels([None, 4, -1], None)
    with pytest.raises(ValueError, match=r"must be integers or strings, got 0\.5"):
        encode_labels([1, 0.5], None)


def test_options_without_meaning_are_refused_by_name() -> None:
    refuse("an array", split=None, image_column=None)
    with pytest.raises(ValueError, match=r"^split='val' has no meaning for an array$"):
        refuse("an array", image_column=None, split="val")
    with pytest.raises(ValueError, match=r"^labels=False has no meaning for a list$"):
        refuse("a list", labels=False)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\n  long\t message\n"), "a long message"),
        (KeyError(), "KeyError"),
        (OSError("\n"), "OSError"),
    ],
)
def test_a_message_is_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line
