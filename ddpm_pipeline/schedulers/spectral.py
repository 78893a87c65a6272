r"""What a calibration with a spectrum says of moves with one variance for each frequency.

.. math:: L(t \to s) = \tfrac1{2D} \sum_k \ln(1 + q\, S_k(t)), \qquad
    q = \mathrm{SNR}_s - \mathrm{SNR}_t

for a chain, and for all moves of a schedule at once. There the S_k of a timestep are sorted and
every run of them stands for itself by its mean, since T² moves of all components would take long.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ddpm_pipeline.diffusion import (
    ErrorSpectrum,
    NoiseSchedule,
    continuous_decoder_costs,
    move_costs,
    spectral_move_costs,
)
from ddpm_pipeline.schedulers.calibration import Calibration, needed_calibration

__all__ = [
    "error_spectrum",
    "needed_spectrum",
    "spectral_chain_costs",
    "spectral_decoder_costs",
    "spectral_step_costs",
    "variance_spectrum",
]


_RUNS = 64  # of sorted components, in the costs of all moves


def needed_spectrum(calibration: Calibration | None, option: str) -> Calibration:
    """Give a calibration back.

    Raises:
        ValueError: If there is none, or it has no spectrum; names the option that needs it.
    """
    calibration = needed_calibration(calibration, option)
    if calibration.spectrum is None:
        raise ValueError(
            f"{option} needs a calibration with a spectrum, which this one was made without; "
            "calibrate again"
        )
    return calibration


@lru_cache(maxsize=4)
def error_spectrum(calibration: Calibration, schedule: NoiseSchedule) -> ErrorSpectrum:
    """Give S_k(t), whose mean is the calibration's error of x_0.

    Raises:
        ValueError: If the calibration has no spectrum, or was made with another schedule.
    """
    needed_spectrum(calibration, "variance_type 'spectral'").check_schedule(schedule)
    return calibration.spectrum.tabulate(schedule, calibration.x_0_error)


@lru_cache(maxsize=4)
def variance_spectrum(calibration: Calibration, schedule: NoiseSchedule) -> ErrorSpectrum:
    """Give what the spectral variances are made of: v_t, spread as x_0's error is."""
    return error_spectrum(calibration, schedule).with_mean(calibration.x_0_variance)


def spectral_chain_costs(
    calibration: Calibration, schedule: NoiseSchedule, chain: Tensor, eta: float | None = None
) -> Tensor:
    """Price the transitions of a chain of K timesteps.

    Arguments:
        calibration: Of the model, with a spectrum.
        schedule: That it was made with.
        chain: The timesteps, int64, shape (K,), strictly decreasing.
        eta: Of DDIM's moves, in (0, 1].
    Returns:
        Nats per dimension, float64, shape (K - 1,).
    """
    moves = torch.stack([chain[:-1], chain[1:]], dim=1)
    error, variance = (f(calibration, schedule) for f in (error_spectrum, variance_spectrum))
    costs = [
        _costs(schedule, t, s, error.at(t).flatten(1), variance.at(t).flatten(1), eta)
        for t, s in (part.unbind(1) for part in moves.split(error.per_part))
    ]
    return torch.cat(costs) if len(moves) else torch.zeros(0, dtype=torch.float64)


def _costs(
    schedule: NoiseSchedule,
    t: Tensor,
    s: Tensor,
    error: Tensor,
    variance: Tensor,
    eta: float | None,
) -> Tensor:
    if eta is None:
        return spectral_move_costs(schedule, t, s, error, variance)
    moves = schedule, t[:, None], s[:, None]
    return move_costs(*moves, error, x_0_variance=variance, eta=eta).mean(1)


def spectral_decoder_costs(calibration: Calibration, schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """Price the moves from t to data with a density, (M,): -log N(x_0; x_0_hat, U^T S U)."""
    error, variance = (f(calibration, schedule) for f in (error_spectrum, variance_spectrum))
    costs = [
        continuous_decoder_costs(error.at(part), variance.at(part)).flatten(1).mean(1)
        for part in t.split(error.per_part)
    ]
    return torch.cat(costs)


def spectral_step_costs(
    calibration: Calibration, schedule: NoiseSchedule, decoder_costs: Tensor
) -> Tensor:
    """Price all moves t → s, the moves to the data among them, nearly exactly.

    Arguments:
        calibration: Of the model, with a spectrum.
        schedule: That it was made with.
        decoder_costs: Of the moves to the data, shape (T,).
    Returns:
        Nats per dimension, float64, shape (T, T + 1), as ``step_costs``.
    """
    T, spectrum = len(schedule), error_spectrum(calibration, schedule)
    errors, shares = zip(
        *(_runs(spectrum.at(t).flatten(1)) for t in spectrum.parts()), strict=True
    )
    errors, shares = torch.cat(errors), torch.cat(shares)
    scale = (calibration.x_0_variance / calibration.x_0_error)[:, None]
    costs = torch.full((T, T + 1), torch.inf, dtype=torch.float64)
    for t in range(1, T):
        landings = torch.arange(t)
        rows = (part[t].expand(t, -1) for part in (errors, errors * scale, shares))
        costs[t, 1 : t + 1] = spectral_move_costs(
            schedule, torch.full_like(landings, t), landings, *rows
        )
    costs[:, 0] = decoder_costs
    return costs


def _runs(errors: Tensor) -> tuple[Tensor, Tensor]:
    """Give the means of runs of sorted components, (M, runs), and their shares of all."""
    runs = errors.sort(dim=1).values.tensor_split(min(_RUNS, errors.shape[1]), dim=1)
    sizes = torch.tensor([run.shape[1] for run in runs], dtype=errors.dtype)
    means = torch.stack([run.mean(1) for run in runs], dim=1)
    return means, (sizes / sizes.sum()).expand_as(means)
