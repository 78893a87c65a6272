"""Options that are refused: the message names the option, its value and what is allowed."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ddpm_pipeline.common.checks import (
    check_above_zero,
    check_at_least,
    check_choice,
    check_integer,
    is_integer,
)


@pytest.mark.parametrize("value", [0, -3, 2**70, np.int64(5), np.uint8(1), torch.tensor(4)])
def test_whole_numbers_of_any_kind_are_integers(value: object) -> None:
    assert is_integer(value)


@pytest.mark.parametrize(
    "value", [True, False, 1.0, np.float32(2), torch.tensor(2.5), "3", None, [1], 1j]
)
def test_other_values_are_not(value: object) -> None:
    assert not is_integer(value)


def test_an_integer_in_range_is_given_back_as_an_int() -> None:
    for value in (1, np.int32(1), torch.tensor(1)):
        assert type(check_integer("count", value)) is int
    assert check_integer("count", 0, least=0) == 0
    assert check_integer("count", 7, most=7) == 7


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (0, {}, "count must be an integer of at least 1, got 0"),
        (True, {}, "count must be an integer of at least 1, got True"),
        (1.5, {}, "count must be an integer of at least 1, got 1.5"),
        ("2", {}, "count must be an integer of at least 1, got '2'"),
        (None, {"least": 0}, "count must be an integer of at least 0, got None"),
        (8, {"most": 7}, "count must be an integer from 1 to 7, got 8"),
        (8, {"most": 7, "note": ", the model's T"}, "from 1 to 7, the model's T, got 8"),
    ],
)
def test_what_is_out_of_range_is_refused(value: object, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        check_integer("count", value, **options)


def test_choices() -> None:
    check_choice("fit", "pad", ("resize", "pad"))
    check_choice("fit", "pad", {"pad": 1})
    check_choice("fit", "pad", iter(["pad"]))
    for value in ("crop", None, "PAD"):
        with pytest.raises(ValueError, match=f"^fit must be one of resize, pad, got {value!r}$"):
            check_choice("fit", value, ("resize", "pad"))


def test_fields_of_options_have_bounds() -> None:
    options = SimpleNamespace(images=0, steps=3)
    check_at_least(options, images=0, steps=3)
    with pytest.raises(ValueError, match=r"^images must be at least 1, got 0$"):
        check_at_least(options, steps=1, images=1)


def test_checks_cost_nothing_to_import() -> None:
    code = (
        "import sys\n"
        "from ddpm_pipeline.common.checks import check_integer\n"
        "print({'torch', 'numpy', 'accelerate'} & sys.modules.keys())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


@pytest.mark.parametrize("value", [0, -1.5, float("nan")])
def test_a_number_that_is_not_above_zero_is_refused(value: float) -> None:
    check_above_zero(share=0.1, rate=None)
    with pytest.raises(ValueError, match=f"rate must be above 0 or None, got {value}"):
        check_above_zero(share=0.1, rate=value)
