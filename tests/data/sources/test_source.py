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
    for gaps in ([0.0, float("nan")], [0, None], [0, -1], ["a", ""], ["a", " "]):
        with pytest.raises(ValueError, match="labels missing for 1 of 2 images; image 1 is"):
            encode_labels(gaps, None)
    with pytest.raises(ValueError, match=r"must be integers or strings, got 0\.5"):
        encode_labels([1, 0.5], None)


@pytest.mark.parametrize(
    ("one", "other"),
    [("caf\u00e9", "cafe\u0301"), ("cat", "cat "), (" cat", "cat"), ("a  b", "a\u00a0b")],
)
def test_classes_that_look_the_same_are_refused(one: str, other: str) -> None:
    message = r"the classes .* and .* look the same, and would be two"
    with pytest.raises(ValueError, match=message) as refusal:
        encode_labels([one, "dog", other], None)
    assert ascii(one) in str(refusal.value)
    assert ascii(other) in str(refusal.value)
    with pytest.raises(ValueError, match=message):
        encode_labels([0, 1], [one, other])
    assert encode_labels(["Cat", "cat", "c at"], None)[1] == ("Cat", "c at", "cat")


def test_integers_that_no_tensor_holds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels must be below 2\^63, got 9223372036854775808"):
        encode_labels([0, 2**63], None)
    assert encode_labels([0, 2**63 - 1], None)[0][1] == 2**63 - 1


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
