"""Steps of solver "spectral" in a scheduler: without noise, with weights for each frequency.

A step takes the state and the prediction of x_0 to frequencies, adds them up there with those of
the step before, and comes back. What a walk remembers are coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    arguments = schedule, prediction_type, timesteps, solver
    if solver.name != "spectral":
        return MultistepChain(*arguments)
    calibration = needed_spectrum(calibration, "solver 'spectral'")
    return SpectralChain(error_spectrum(calibration, schedule), *arguments)


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
        self._spectrum = spectrum
        super().__init__(schedule, prediction_type, timesteps, solver)

    def _prepare(self) -> None:
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
        values = (*now, *history.predictions)
        weights = self._weights(history.place, bool(history.predictions), x_t)
        x_s = values[0] * weights[0]
        for weight, value in zip(weights[1:], values[1:], strict=False):
            x_s.addcmul_(weight, value)
        return basis.to_pixels(x_s), self._after(history, now if self._order > 1 else ())

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
