"""Steps of solver "spectral" in a scheduler: without noise, with weights for each frequency.

A step takes the state and the prediction of x_0 to frequencies, adds them up there with those of
the step before, and comes back. What a walk remembers are coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ddpm_pipeline.common import moved
from ddpm_pipeline.diffusion import (
    ErrorSpectrum,
    NoiseSchedule,
    PredictionType,
    local_variances,
    spectral_step,
)
from ddpm_pipeline.schedulers.calibration import Calibration
from ddpm_pipeline.schedulers.choices import Solver
from ddpm_pipeline.schedulers.kept_tables import KeptTables
from ddpm_pipeline.schedulers.multistep import History, MultistepChain, WalkedChain
from ddpm_pipeline.schedulers.spectral import error_spectrum, needed_spectrum

__all__ = ["SpectralChain", "walked_chain"]


def walked_chain(
    schedule: NoiseSchedule,
    prediction_type: PredictionType,
    timesteps: Sequence[int],
    solver: Solver,
    calibration: Calibration | None,
) -> WalkedChain:
    """Make the chain of a solver whose steps use earlier ones.

    Arguments:
        schedule, prediction_type, timesteps, solver: As for ``WalkedChain``.
        calibration: Of the model, which solver "spectral" needs.
    Raises:
        ValueError: As the chains do, or if there is no spectrum for "spectral".
    """
    arguments = schedule, prediction_type, tuple(timesteps), solver
    if solver.name != "spectral":
        return MultistepChain(*arguments)
    return _spectral_chain(needed_spectrum(calibration, "solver 'spectral'"), *arguments)


# Every call of a pipeline chooses its chain anew, mostly the one of the call before, whose weights
# take longer than its steps.
@lru_cache(maxsize=8)
def _spectral_chain(
    calibration: Calibration,
    schedule: NoiseSchedule,
    prediction_type: PredictionType,
    timesteps: tuple[int, ...],
    solver: Solver,
) -> SpectralChain:
    spectrum = error_spectrum(calibration, schedule)
    return SpectralChain(spectrum, schedule, prediction_type, timesteps, solver)


class SpectralChain(WalkedChain):
    """All steps of a chain that are exact for Gaussian data of any spectrum.

    Arguments:
        spectrum: Of x_0's error.
        schedule, prediction_type, timesteps, solver: As for ``WalkedChain``.
    """

    def __init__(
        self,
        spectrum: ErrorSpectrum,
        schedule: NoiseSchedule,
        prediction_type: PredictionType,
        timesteps: Sequence[int],
        solver: Solver,
    ) -> None:
        super().__init__(schedule, prediction_type, timesteps, solver)
        self._spectrum = spectrum
        self._steps = KeptTables()

    def step(
        self, history: History, x_0_hat: Tensor, x_t: Tensor
    ) -> tuple[Tensor, History | None]:
        """Give x_s, and the walk after the step; None at its end.

        Raises:
            ValueError: If the spectrum is that of images of another shape.
        """
        basis = self._spectrum.basis
        now = tuple(basis.to_frequencies(x) for x in (x_t, x_0_hat))
        weights = self._weights(history.place, bool(history.predictions), x_t)
        is_last = self._ends_at(history)
        is_remembered = self._order > 1 and not is_last
        # These coefficients are seen by nobody else.
        x_s = now[0] * weights[0] if is_remembered else now[0].mul_(weights[0])
        for weight, value in zip(weights[1:], (now[1], *history.predictions), strict=False):
            x_s.addcmul_(weight, value)
        remembered = now if is_remembered else ()
        return basis.to_pixels(x_s), None if is_last else history.after(*remembered)

    def _weights(self, place: int, goes_on: bool, x: Tensor) -> tuple[Tensor, ...]:
        key = (place, goes_on, x.device, x.dtype)
        return self._steps.get(key, lambda: self._weights_of(*key))

    def _weights_of(
        self, place: int, goes_on: bool, device: torch.device, dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        """Compute the weights of a step: two for order 1, four for order 2."""
        chain = [*self._timesteps, -1]
        variance = local_variances(self._spectrum, torch.tensor(chain[place : place + 1]))[0]
        last = chain[place - 1] if goes_on else None
        step = spectral_step(self._schedule, *chain[place : place + 2], variance, last)
        weights = step if step.from_last_x_t.any() else step[:2]
        return tuple(moved(w.to(dtype), device) for w in weights)
