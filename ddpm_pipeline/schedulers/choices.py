"""The options that a calibration brings, by name, which cost nothing to import."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = [
    "CALIBRATED_SPACINGS",
    "OBJECTIVES",
    "VARIANCE_ESTIMATES",
    "Objective",
    "VarianceEstimate",
]

VarianceEstimate = Literal["error", "moment"]
VARIANCE_ESTIMATES: tuple[str, ...] = get_args(VarianceEstimate)
"""What the analytic variance is made of: the error of x_0, or the paper's moment of the noise."""

Objective = Literal["likelihood", "samples"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
"""What the timesteps of a chain are the best for: see optimal.py."""

CALIBRATED_SPACINGS: dict[str, Objective] = {
    "optimal": "likelihood",
    "optimal_samples": "samples",
}
"""Spacings that follow from a calibration, and what they are the best for."""
