"""The lengths of power-function averages, against moments of their weights by numbers."""

from __future__ import annotations

import mpmath
import pytest

from ddpm_pipeline.training.lengths import LONGEST, gamma_of, sigma_rel_of


@pytest.mark.parametrize("gamma", [0.0, 0.5, 6.94, 16.97, 2500.0])
def test_the_length_is_the_standard_deviation_of_the_profile(gamma: float) -> None:
    def moment(power: int) -> mpmath.mpf:
        return mpmath.quad(lambda x: (gamma + 1) * x ** (gamma + power), [0, 0.5, 0.9, 0.99, 1])

    assert sigma_rel_of(gamma) == pytest.approx(float(mpmath.sqrt(moment(2) - moment(1) ** 2)))


@pytest.mark.parametrize("sigma_rel", [1e-6, 0.02, 0.05, 0.1, 0.25, LONGEST])
def test_the_exponent_is_that_of_the_length(sigma_rel: float) -> None:
    assert sigma_rel_of(gamma_of(sigma_rel)) == pytest.approx(sigma_rel, rel=1e-12)


def test_the_exponents_of_the_paper() -> None:
    """Karras et al. 2024 give 6.94 for 10 % and 16.97 for 5 %."""
    assert gamma_of(0.1) == pytest.approx(6.94, abs=0.005)
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005)


@pytest.mark.parametrize("sigma_rel", [0.0, -0.05, 0.3, float("nan"), float("inf")])
def test_what_is_no_length_is_refused(sigma_rel: float) -> None:
    with pytest.raises(ValueError, match=r"sigma_rel must be above 0 and at most 0\.2887, got"):
        gamma_of(sigma_rel)
