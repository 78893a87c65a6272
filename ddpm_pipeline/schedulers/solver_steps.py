"""The steps that are best for a solver of high order, by the spectrum that a calibration measured.

Steps that are best for DDIM (``optimal``) are not: a solver that uses earlier predictions again
gets most wrong at both ends of a chain, where it is of low order. The closed form for Gaussian
data says how much; a tenth of DDIM's own error is added to it, for what a network predicts of
images does not change as smoothly as what it would of a Gaussian.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ddpm_pipeline.diffusion import (
    Components,
    NoiseSchedule,
    best_chain,
    check_num_steps,
    spaced_timesteps,
    step_errors,
)
from ddpm_pipeline.schedulers.calibration import Calibration
from ddpm_pipeline.schedulers.choices import Solver

__all__ = ["solver_timesteps"]

_ROUGHNESS = 0.1
# Chains of more steps follow the density of this many, where moving them one by one would take
# seconds; there are hardly any errors left to tell.
_MOVED_STEPS = 10


def solver_timesteps(
    calibration: Calibration, schedule: NoiseSchedule, K: int, solver: Solver
) -> Tensor:
    """Find the K timesteps from T-1 down that are best for images drawn by a solver.

    Arguments:
        calibration: Of the model, with a spectrum.
        schedule: That it was made with.
        K: Number of timesteps, 1 <= K <= T.
        solver: Of name "multistep".
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
    order = solver.order_for(K)
    chain = _best(calibration, schedule, min(K, _MOVED_STEPS), order, solver.corrector)
    return torch.tensor(chain if K <= _MOVED_STEPS else _stretched(chain, K))


@lru_cache(maxsize=64)
def _best(
    calibration: Calibration, schedule: NoiseSchedule, K: int, order: int, corrector: bool
) -> list[int]:
    """Move the timesteps of a chain to where their error is least."""
    spectrum = calibration.spectrum.tabulate(schedule, calibration.x_0_error)
    components = Components.of(spectrum.data_variance)

    def error(chains: Tensor) -> Tensor:
        found = step_errors(schedule, chains, components, order=order, corrector=corrector)
        rough = step_errors(schedule, chains, components, order=1, corrector=False)
        return found + _ROUGHNESS * rough

    starts = (spaced_timesteps(len(schedule), K, name) for name in ("trailing", "quadratic"))
    return best_chain(error, [start.tolist() for start in starts])


def _stretched(chain: list[int], K: int) -> list[int]:
    """Give K timesteps as dense as those of a shorter chain, whose ends it keeps."""
    places = np.linspace(0, len(chain), K + 1)[:-1]
    found = np.interp(places, range(len(chain) + 1), [*chain, -1]).round().astype(int)
    # Rounding may have made two of them one.
    lowest = np.arange(K - 1, -1, -1)
    return (np.minimum.accumulate(np.maximum(found, lowest) - lowest) + lowest).tolist()
