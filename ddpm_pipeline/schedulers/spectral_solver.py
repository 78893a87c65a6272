"""Steps of solver "spectral" in a scheduler: without noise, with weights for each frequency.

A step takes the state and the prediction of x_0 to frequencies, adds them up there with those of
the step before, and comes back. What a walk remembers are coefficients; those of the state that a
step gave are known at the next one.
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
    add_scaled_,
    local_variances,
    spectral_step,
)
from ddpm_pipeline.schedulers.calibration import Calibration
from ddpm_pipeline.schedulers.choices import Solver
from ddpm_pipeline.schedulers.drawing import Generators
from ddpm_pipeline.schedulers.kept_tables import KeptTables
from ddpm_pipeline.schedulers.multistep import History, Landing, MultistepChain, WalkedChain
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
        signals = schedule.alpha_bar(torch.tensor([*self._timesteps, -1])).sqrt()
        self._signals: list[float] = signals.tolist()

    def step(
        self,
        history: History,
        x_0_hat: Tensor,
        x_t: Tensor,
        generator: Generators,  # noqa: ARG002 (these steps draw nothing)
    ) -> tuple[Tensor, History | None]:
        """Give x_s, and the walk after the step; None at its end.

        Raises:
            ValueError: If the spectrum is that of images of another shape.
        """
        basis = self._spectrum.basis
        weights = self._weights(history.place, bool(history.predictions), x_t)
        if self._order == 1:
            # from_x_0 is alpha_s - alpha_t from_x_t: one transform, of the noise, for both.
            alpha_t, alpha_s = self._signals[history.place : history.place + 2]
            noise = basis.to_frequencies(torch.sub(x_t, x_0_hat, alpha=alpha_t))
            x_s = add_scaled_(basis.to_pixels(noise.mul_(weights[0])), alpha_s, x_0_hat)
            return x_s, None if self._ends_at(history) else history.after()
        landing = history.landing
        state = None if landing is None else landing.known(x_t)
        state = basis.to_frequencies(x_t) if state is None else state
        prediction = basis.to_frequencies(x_0_hat)
        coefficients = state * weights[0]
        for weight, value in zip(weights[1:], (prediction, *history.predictions), strict=False):
            coefficients.addcmul_(weight, value)
        x_s = basis.to_pixels(coefficients)
        if self._ends_at(history):
            return x_s, None
        return x_s, history.after(state, prediction, landing=Landing.of(x_s, coefficients))

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
