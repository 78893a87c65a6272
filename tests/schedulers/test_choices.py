"""``Solver``: its options are kept where they are not asked to change, and refused by name."""

from __future__ import annotations

import pytest

from ddpm_pipeline.schedulers.choices import Solver

SAVED = Solver("multistep", order=3, corrector=False, num_inference_steps=20)


def test_options_that_are_not_given_stay() -> None:
    changed = Solver.of(SAVED, kind="bh1")
    assert changed == Solver(
        "multistep", order=3, corrector=False, kind="bh1", num_inference_steps=20
    )
    assert Solver.of(SAVED) == SAVED
    assert Solver.of("multistep", order=3) == Solver("multistep", order=3)


def test_the_own_name_asks_for_the_solver_with_its_options() -> None:
    assert SAVED.asked("multistep") == SAVED
    assert SAVED.asked("ddim") == Solver("ddim")
    assert SAVED.asked(Solver("multistep")) == Solver("multistep")


def test_what_was_saved_comes_back_and_what_is_newer_is_named() -> None:
    assert Solver.from_dict(SAVED.to_dict()) == SAVED
    noisy = Solver.of(SAVED, eta=0.5)
    assert Solver.from_dict(noisy.to_dict()) == noisy
    assert "eta" not in SAVED.to_dict()  # so that a version without reads it
    message = "solver's options must be among name, .*, got 'lower_order'; a newer ddpm_pipeline"
    with pytest.raises(ValueError, match=message):
        Solver.from_dict({**SAVED.to_dict(), "lower_order": True})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("multistep", {"corrector": 1}, "corrector of solver must be one of True, False, got 1"),
        ("ddim", {"order": 2}, "for 'multistep' alone, got order=2 for 'ddim'"),
        (
            "ddpm",
            {"kind": "bh1", "corrector": False},
            "got corrector=False, kind='bh1' for 'ddpm'",
        ),
        ("spectral", {"order": 1, "kind": "bh1"}, "alone, got kind='bh1' for 'spectral'"),
        ("ddim", {"eta": 0.5}, "for 'multistep' alone, got eta=0.5 for 'ddim'"),
        ("multistep", {"eta": 1.5}, r"eta must be a number in \[0, 1\], got 1.5"),
    ],
)
def test_what_is_refused_is_named_with_its_value(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Solver(name, **options)
