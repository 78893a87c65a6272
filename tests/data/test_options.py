"""Options of reading: what was given wins over what is remembered, and both are JSON."""

from __future__ import annotations

import json

import pytest

from ddpm_pipeline.data.options import ReadingOptions

EVERY = ReadingOptions(
    fit="pad",
    crop="random",
    channels=3,
    value_range=(0.0, 1.0),
    image_column="photo",
    label_column="kind",
    background=(1, 2, 3),
    max_pixels=10**9,
    strict=False,
)


@pytest.mark.parametrize("options", [ReadingOptions(), EVERY, ReadingOptions(background="red")])
def test_json_and_back(options: ReadingOptions) -> None:
    assert ReadingOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options


def test_what_was_given_wins() -> None:
    given = ReadingOptions(fit="resize", strict=True)
    assert given.over(None) == given
    both = given.over(EVERY)
    assert (both.fit, both.strict, both.background) == ("resize", True, (1, 2, 3))
    assert given.arguments() == {"fit": "resize", "strict": True}


def test_unknown_options_are_named() -> None:
    with pytest.raises(ValueError, match="unknown options of reading: colour, depth"):
        ReadingOptions.from_dict({"depth": 1, "colour": 2, "fit": "pad"})
