"""Sums are kept in float64 where there is one, and products are as exact as asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ddpm_pipeline.common.precision import float32_arithmetic, precise_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKENDS = torch.backends


@pytest.mark.parametrize(
    ("device", "dtype"), [("cpu", torch.float64), ("cuda", torch.float64), ("mps", torch.float32)]
)
def test_only_apples_devices_lack_float64(device: str, dtype: torch.dtype) -> None:
    assert precise_dtype(torch.device(device)) == dtype


@pytest.fixture
def fresh_switches() -> Iterator[None]:
    """What a new process has chosen, before and after."""
    reset_switches()
    yield
    reset_switches()


def reset_switches() -> None:
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.allow_tf32 = True
    BACKENDS.fp32_precision = BACKENDS.cudnn.fp32_precision = "none"
    for switch in (BACKENDS.cuda.matmul, BACKENDS.mkldnn.matmul, BACKENDS.mkldnn.conv):
        switch.fp32_precision = "none"


def chosen() -> dict[str, object]:
    """All that torch tells of the process's choice, and what it refuses to tell."""
    readings = {
        "legacy matmul": lambda: BACKENDS.cuda.matmul.allow_tf32,
        "legacy precision": torch.get_float32_matmul_precision,
        "legacy cudnn": lambda: BACKENDS.cudnn.allow_tf32,
        "matmul": lambda: BACKENDS.cuda.matmul.fp32_precision,
        "conv": lambda: BACKENDS.cudnn.conv.fp32_precision,
        "rnn": lambda: BACKENDS.cudnn.rnn.fp32_precision,
        "cpu matmul": lambda: BACKENDS.mkldnn.matmul.fp32_precision,
        "cpu conv": lambda: BACKENDS.mkldnn.conv.fp32_precision,
    }
    values = {}
    for name, read in readings.items():
        try:
            values[name] = read()
        except RuntimeError:
            values[name] = RuntimeError
    return values


CHOICES = {
    "nothing": lambda: None,
    "older: matmul": lambda: setattr(BACKENDS.cuda.matmul, "allow_tf32", True),
    "older: no convolutions": lambda: setattr(BACKENDS.cudnn, "allow_tf32", False),
    "older: high": lambda: torch.set_float32_matmul_precision("high"),
    "older: medium": lambda: torch.set_float32_matmul_precision("medium"),
    "newer: matmul": lambda: setattr(BACKENDS.cuda.matmul, "fp32_precision", "tf32"),
    "newer: convolutions": lambda: setattr(BACKENDS.cudnn.conv, "fp32_precision", "ieee"),
    "newer: all": lambda: setattr(BACKENDS, "fp32_precision", "tf32"),
    "newer: cudnn": lambda: setattr(BACKENDS.cudnn, "fp32_precision", "ieee"),
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("tf32", [False, True])
def test_arithmetic_is_chosen_for_a_block_and_no_longer(
    fresh_switches: None, choice: str, tf32: bool
) -> None:
    CHOICES[choice]()
    before = chosen()
    inside = {}
    with pytest.raises(KeyError), float32_arithmetic(tf32=tf32):
        raise KeyError(inside.update(chosen()))
    assert chosen() == before
    # Neither interface refuses to tell, as torch.compile would find out.
    assert inside["legacy matmul"] is inside["legacy cudnn"] is tf32
    assert inside["legacy precision"] in ({"high", "medium"} if tf32 else {"highest"})
    assert {inside[name] for name in ("matmul", "conv", "rnn")} == {"tf32" if tf32 else "ieee"}
    on_cpu = ("cpu matmul", "cpu conv")
    assert all(inside[name] == (before[name] if tf32 else "ieee") for name in on_cpu)


def test_arithmetic_of_an_inner_block_ends_with_it(fresh_switches: None) -> None:
    with float32_arithmetic(tf32=True):
        outer = chosen()
        with float32_arithmetic(tf32=False):
            assert chosen() != outer
        assert chosen() == outer
