"""Options in messages, written as they are typed."""

from __future__ import annotations

import pytest

from ddpm_pipeline.common import as_typed, names_option

NAMES = (
    "train_batch_size", "streaming", "max_train_steps", "loss", "resolution", "train_split",
    "output_dir", "output", "seed", "use_ema", "split",
)  # fmt: skip


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("train_batch_size=64 is large", "--train_batch_size=64 is large"),
        ("give streaming=True and max_train_steps", "give --streaming and --max_train_steps"),
        ("the loss is nan", "the loss is nan"),
        ("resolution must be 8", "--resolution must be 8"),
        (
            "no folder 'train_split' or a/train_split/b",
            "no folder 'train_split' or a/train_split/b",
        ),
        ("--output_dir is there", "--output_dir is there"),
        ("seed: 0 → 9", "seed: 0 → 9"),
        ("a use_ema=False", "a --no_use_ema"),
    ],
)
def test_options_get_hyphens_and_other_words_do_not(message: str, expected: str) -> None:
    assert as_typed(message, NAMES) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("output 'a.png' exists", "--output 'a.png' exists"),
        ("split='test': there is none", "--split='test': there is none"),
        ("output_dir='a' cannot be written", "--output_dir='a' cannot be written"),
        ("the output must be a file", "the output must be a file"),
        ("need value_range=(low, high), as (0, 1)", "need value_range LOW HIGH, as (0, 1)"),
        ("", ""),
    ],
)
def test_a_plain_word_is_an_option_where_it_opens_or_has_a_value(
    message: str, expected: str
) -> None:
    assert as_typed(message, NAMES) == expected


def test_a_message_names_an_option_or_none() -> None:
    assert names_option("max_train_steps must be above 0", NAMES)
    assert not names_option("the loss is nan", NAMES)
    assert not names_option("seed=1", ())
