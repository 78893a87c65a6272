r"""What a calibration says about chains: their bits per dimension, and which are the best.

The bound comes from e_t alone, without forward passes:

.. math:: \text{bound}(t_K > \dots > t_1) = L_T(t_K) + \sum_k L(t_k \to t_{k-1}) + L_0(t_1)

"likelihood" is the chain with the least bound. It spends timesteps on detail far below what
anyone sees, and the published experience is that its images are worse than those of even steps
(Watson et al. 2021, table 5). "samples" is the chain on which DDIM loses the least of the
variance of images, in units of the image and not in nats
(``lost_variance_costs``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ddpm_pipeline.common import check_choice
from ddpm_pipeline.diffusion import (
    PRICED_VARIANCES,
    NoiseSchedule,
    ProcessVariance,
    ShortestPaths,
    bits_per_dim,
    check_chain,
    check_num_steps,
    continuous_decoder_costs,
    decoder_costs_at,
    linear_error,
    lost_variance_costs,
    move_costs,
    prior_cost,
    reverse_coefficients,
    shortest_paths,
    spaced_timesteps,
    step_costs,
)
from ddpm_pipeline.schedulers.calibration import Calibration, needed_calibration
from ddpm_pipeline.schedulers.choices import (
    CALIBRATED_SPACINGS,
    OBJECTIVES,
    Objective,
    Solver,
)
from ddpm_pipeline.schedulers.solver_steps import solver_timesteps
from ddpm_pipeline.schedulers.spectral import (
    spectral_chain_costs,
    spectral_decoder_costs,
    spectral_step_costs,
)

__all__ = [
    "chain_bits_per_dim",
    "chain_costs",
    "optimal_timesteps",
    "timesteps_of",
]


DDPM = Solver()


def timesteps_of(
    calibration: Calibration | None,
    schedule: NoiseSchedule,
    K: int,
    spacing: str,
    variance_type: str,
    *,
    steps_offset: int = 0,
    solver: Solver = DDPM,
) -> Tensor:
    """Give K timesteps by any spacing.

    Arguments:
        calibration: Of the model, for the spacings that follow from one.
        schedule: Noise schedule with T steps.
        K: Number of timesteps, 1 <= K <= T.
        spacing: One of SPACINGS or CALIBRATED_SPACINGS.
        variance_type: As for ``optimal_timesteps``.
        steps_offset: Added to every timestep of "leading".
        solver: That takes the steps; "optimal_samples" are other steps for "multistep".
    Returns:
        Timesteps, int64, strictly decreasing, shape (K,).
    Raises:
        ValueError: As ``spaced_timesteps`` and ``optimal_timesteps``, or if there is no
            calibration and the spacing needs one.
    """
    if spacing not in CALIBRATED_SPACINGS:
        return spaced_timesteps(len(schedule), K, spacing, steps_offset=steps_offset)
    calibration = needed_calibration(calibration, f"timestep_spacing {spacing!r}")
    if spacing == "optimal_samples" and solver.name == "multistep":
        return solver_timesteps(calibration, schedule, K, solver)
    return optimal_timesteps(
        calibration,
        schedule,
        K,
        variance_type=variance_type,
        objective=CALIBRATED_SPACINGS[spacing],
    )


# From zero SNR two moves lose the same through any timestep: the smaller squares then decide.
_TIE_BREAK = 1e-6


def optimal_timesteps(
    calibration: Calibration,
    schedule: NoiseSchedule,
    K: int,
    *,
    variance_type: ProcessVariance = "analytic",
    objective: Objective = "likelihood",
) -> Tensor:
    """Find the best K timesteps from T-1 down.

    Arguments:
        calibration: Of the model.
        schedule: That it was made with.
        K: Number of timesteps, 1 <= K <= T.
        variance_type: The variance of the moves, for "likelihood"; learned ones, of which the
            calibration knows nothing, get the steps that are best with the analytic variance.
        objective: "likelihood" or "samples".
    Returns:
        Timesteps, int64, strictly decreasing, shape (K,).
    Raises:
        ValueError: If an option is not allowed, or the schedule is another one.
    Source: Watson et al. 2021 (arXiv:2106.03802), section 3.
    """
    calibration.check_schedule(schedule)
    check_choice("objective", objective, OBJECTIVES)
    T = len(schedule)
    K = check_num_steps(K, T)
    if objective == "samples" or variance_type not in (*PRICED_VARIANCES, "spectral"):
        variance_type = "analytic"
    if K == T:
        return torch.arange(T - 1, -1, -1)
    max_steps = min(1 << (K - 1).bit_length(), T)  # one programme for many K
    return _paths(calibration, schedule, variance_type, objective, max_steps).chain(K)


@lru_cache(maxsize=16)
def _paths(
    calibration: Calibration,
    schedule: NoiseSchedule,
    variance_type: ProcessVariance,
    objective: Objective,
    max_steps: int,
) -> ShortestPaths:
    costs, last_costs = _costs(calibration, schedule, variance_type, objective)
    return shortest_paths(costs, max_steps, last_costs=last_costs)


@lru_cache(maxsize=4)
def _costs(
    calibration: Calibration,
    schedule: NoiseSchedule,
    variance_type: ProcessVariance,
    objective: Objective,
) -> tuple[Tensor, Tensor | None]:
    """Price all moves, and the last moves where they depend on those before."""
    if objective == "samples":
        error = calibration.wiener_error
        if error is None or not error.max() > 0:
            error = linear_error(schedule, calibration.second_moment)
        costs = lost_variance_costs(schedule, error)
        return costs + _TIE_BREAK * costs.square() / error.max(), None
    T = len(schedule)
    decoder_costs = _decoder_costs(calibration, schedule, torch.arange(T), None, variance_type)
    if variance_type == "spectral":
        return spectral_step_costs(calibration, schedule, decoder_costs), None
    costs = step_costs(
        schedule,
        calibration.x_0_error,
        decoder_costs,
        variance_type=variance_type,
        x_0_variance=calibration.x_0_variance,
    )
    last_costs = None
    if variance_type.startswith("fixed_small"):
        # Its variance at the data is that of the move before.
        above, t = torch.tril_indices(T, T, offset=-1)
        last_costs = torch.zeros_like(costs)
        last_costs[above, t + 1] = _decoder_costs(calibration, schedule, t, above, variance_type)
    return costs, last_costs


def _decoder_costs(
    calibration: Calibration,
    schedule: NoiseSchedule,
    t: Tensor,
    above: Tensor | None,
    variance_type: ProcessVariance,
) -> Tensor:
    """Give E[-log p(x_0 | x_t)]/D with the variance of ``reverse`` at s = -1, shape (M,).

    As in ``variational_bound``, a continuous decoder beside fixed variances has the best one.
    """
    is_density = not len(calibration.decoder)
    if variance_type in ("analytic", "spectral") and not is_density:
        cost, by_value = calibration.decoder_cost[t], calibration.value_decoder
        if variance_type == "analytic" or by_value is None:
            return cost
        return (cost - by_value.gain_at(schedule.snr(t))).clamp(min=0)
    if variance_type == "spectral":
        return spectral_decoder_costs(calibration, schedule, t)
    if variance_type != "analytic" and is_density:
        return continuous_decoder_costs(calibration.x_0_error[t])
    move = reverse_coefficients(
        schedule,
        t,
        torch.full_like(t, -1),
        prediction_type="sample",
        variance_type=variance_type,
        above=above,
        x_0_variance=calibration.decoder_variance[t],
    )
    variance = move.log_var.exp()
    if is_density:
        return continuous_decoder_costs(calibration.x_0_error[t], variance)
    ratio = variance / schedule.one_minus_alpha_bar(t)
    # A probability is at most 1, whatever the form says beyond the ratios that are kept.
    return decoder_costs_at(calibration.decoder[:, t], ratio).clamp(min=0)


def chain_bits_per_dim(
    calibration: Calibration,
    schedule: NoiseSchedule,
    timesteps: Sequence[int] | Tensor,
    *,
    variance_type: ProcessVariance = "analytic",
    eta: float | None = None,
) -> float:
    """Give the variational bound of a chain, as ``variational_bound`` would measure it.

    Arguments:
        calibration: Of the model.
        schedule: That it was made with.
        timesteps: The chain, strictly decreasing in [0, T-1].
        variance_type: One of PRICED_VARIANCES, or spectral.
        eta: The bound of DDIM's moves with this eta in (0, 1].
    Returns:
        Bits per dimension; ``calibration.standard_error`` is that of the full chain.
    Raises:
        ValueError: If the timesteps are no chain, an option is not allowed, eta is 0, or the
            schedule is another one.
    """
    calibration.check_schedule(schedule)
    chain = torch.tensor(check_chain(timesteps, len(schedule)))
    costs = chain_costs(calibration, schedule, chain, variance_type, eta)
    prior = prior_cost(schedule, calibration.second_moment, int(chain[0]))
    return float(bits_per_dim(prior + costs[:-1].sum() + costs[-1], 1))


def chain_costs(
    calibration: Calibration,
    schedule: NoiseSchedule,
    chain: Tensor,
    variance_type: ProcessVariance,
    eta: float | None = None,
) -> Tensor:
    """Price the moves of a chain of K timesteps, the last of which ends at the data.

    Arguments:
        calibration, schedule, variance_type, eta: As in ``chain_bits_per_dim``.
        chain: The timesteps, int64, shape (K,), strictly decreasing.
    Returns:
        Nats per dimension of every transition and then of the decoder, float64, shape (K,).
    """
    t, s = chain[:-1], chain[1:]
    above = chain[-2:-1] if len(chain) > 1 else torch.tensor([len(schedule)])
    decoder = _decoder_costs(calibration, schedule, chain[-1:], above, variance_type)
    if variance_type == "spectral":
        return torch.cat([spectral_chain_costs(calibration, schedule, chain, eta), decoder])
    moves = move_costs(
        schedule,
        t,
        s,
        calibration.x_0_error[t],
        variance_type=variance_type,
        x_0_variance=calibration.x_0_variance[t],
        eta=eta,
    )
    return torch.cat([moves, decoder])
