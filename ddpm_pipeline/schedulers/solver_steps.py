"""The steps that are best for a solver of high order, by the spectrum that a calibration measured.

Steps that are best for DDIM (``optimal``) lose the least variance of Gaussian data. A solver that
uses earlier predictions again loses hardly any; what it gets wrong is where a prediction changes
in the course of a step, and how much of that reaches the image. Both follow from the errors that
were measured (``diffusion.held_costs``), and the cheapest steps are a shortest path. Many steps
miss little, and how a network's own errors add up is not in the costs: between 10 and 25 steps
the path goes over into even steps.
"""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

from ddpm_pipeline.diffusion import (
    ComponentErrors,
    NoiseSchedule,
    ShortestPaths,
    check_num_steps,
    held_prediction_costs,
    shortest_paths,
    spaced_timesteps,
)
from ddpm_pipeline.schedulers.calibration import Calibration
from ddpm_pipeline.schedulers.choices import Solver

__all__ = ["solver_timesteps"]

# Up to how many steps they are the cheapest, and from how many on they are even: of 8 calls the
# cheapest drew the best images, of 25 the even ones.
_CHEAPEST_UP_TO, _EVEN_FROM = 10, 25


def solver_timesteps(
    calibration: Calibration, schedule: NoiseSchedule, K: int, solver: Solver
) -> Tensor:
    """Find the K timesteps from T-1 down that are best for images drawn by a solver.

    From 25 on they are "trailing".

    Arguments:
        calibration: Of the model, with a spectrum.
        schedule: That it was made with.
        K: Number of timesteps, 1 <= K <= T.
        solver: Of name "multistep"; its order makes no difference to the steps.
    Returns:
        Timesteps, int64, strictly decreasing, shape (K,).
    Raises:
        ValueError: If K or the order is not allowed, the schedule is another one, or the
            calibration has no spectrum.
    """
    calibration.check_schedule(schedule)
    K = check_num_steps(K, len(schedule))
    if calibration.spectrum is None:
        raise ValueError(
            "timestep_spacing 'optimal_samples' with solver 'multistep' needs a calibration with "
            "a spectrum, got one without; calibrate again"
        )
    solver.order_for(K)
    even = spaced_timesteps(len(schedule), K, "trailing")
    if K >= _EVEN_FROM:
        return even
    max_steps = min(1 << (K - 1).bit_length(), len(schedule))  # one programme for many K
    cheapest = _paths(calibration, schedule, max_steps).chain(K)
    share, whole = max(0, K - _CHEAPEST_UP_TO), _EVEN_FROM - _CHEAPEST_UP_TO
    return ((whole - share) * cheapest + share * even + whole // 2) // whole


@lru_cache(maxsize=8)
def _paths(calibration: Calibration, schedule: NoiseSchedule, max_steps: int) -> ShortestPaths:
    return shortest_paths(_costs(calibration, schedule), max_steps)


@lru_cache(maxsize=2)
def _costs(calibration: Calibration, schedule: NoiseSchedule) -> Tensor:
    spectrum = calibration.spectrum.tabulate(schedule, calibration.x_0_error)
    return held_prediction_costs(schedule, ComponentErrors.of(spectrum))
