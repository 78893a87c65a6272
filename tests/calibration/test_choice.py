"""A calibrated model never samples worse than before: which options change, by which distances."""

from __future__ import annotations

import pytest

from ddpm_pipeline import DDPMScheduler
from ddpm_pipeline.calibration.choice import sampling_options
from ddpm_pipeline.calibration.config import CalibrateConfig

Row = dict[int, float]
OWN = {10: 62.0, 25: 20.0, 100: 10.0}
WORSE = {10: 102.0, 25: 19.0, 100: 9.0}
BETTER = {10: 60.0, 25: 19.0, 100: 10.0}
BEST = {10: 50.0, 25: 15.0, 100: 10.0}


def chosen(
    rows: dict[str, Row], *, own: dict[str, object] | None = None, **options: object
) -> dict[str, str]:
    own = own or {"timestep_spacing": "trailing"}
    defaults = {"features": "f"} if rows else {}
    config = CalibrateConfig(model=".", data="d", **(defaults | options))
    return sampling_options(config, DDPMScheduler(100, **own), rows)


def test_without_distances_nothing_changes_that_was_not_asked_for() -> None:
    assert chosen({}) == {}
    assert chosen({}, timestep_spacing="optimal") == {"timestep_spacing": "optimal"}
    assert chosen({}, variance_type="analytic") == {"variance_type": "analytic"}
    assert chosen({}, variance_type="as_saved") == {}


def test_what_draws_worse_images_at_any_number_of_steps_is_not_taken() -> None:
    rows = {"fixed_small trailing": OWN, "analytic trailing": WORSE}
    assert chosen(rows) == {}
    assert chosen(rows, variance_type="analytic") == {"variance_type": "analytic"}
    assert chosen({"fixed_small trailing": OWN, "analytic trailing": OWN}) == {}


def test_the_best_of_those_that_are_better_everywhere_is_taken() -> None:
    rows = {
        "fixed_small trailing": OWN,
        "analytic trailing": BETTER,
        "analytic optimal_samples": BEST,
        "fixed_large optimal": WORSE,
        "ddim optimal_samples": {10: 1.0, 25: 1.0, 100: 1.0},  # which is no chain of DDPM
    }
    best = {"variance_type": "analytic", "timestep_spacing": "optimal_samples"}
    assert chosen(rows) == best
    assert chosen(rows, timestep_spacing="trailing") == {
        "variance_type": "analytic",
        "timestep_spacing": "trailing",
    }
    assert chosen(rows, variance_type="as_saved") == {}
    small = {"fixed_small trailing": OWN, "fixed_small optimal_samples": BEST}
    assert chosen(small) == {"timestep_spacing": "optimal_samples"}


def test_a_row_is_needed_of_what_the_model_samples_with_now() -> None:
    rows = {"fixed_small trailing": OWN, "analytic trailing": BEST}
    assert chosen(rows, own={"timestep_spacing": "leading"}) == {}
    assert chosen(rows, own={"variance_type": "fixed_large_log"}) == {}
    learned = {"variance_type": "learned_range", "timestep_spacing": "trailing"}
    assert chosen(rows, own=learned) == {}


@pytest.mark.parametrize(
    ("ddim", "taken"), [({}, False), ({"ddim trailing": WORSE}, False), (None, True)]
)
def test_what_ddim_draws_with_the_spacing_of_stock_must_not_get_worse(
    ddim: dict[str, Row] | None, taken: bool
) -> None:
    rows = {"fixed_small linspace": OWN, "analytic trailing": BEST, "ddim linspace": OWN}
    rows |= {"ddim trailing": BETTER} if ddim is None else ddim
    assert bool(chosen(rows, own={"timestep_spacing": "linspace"})) == taken
