r"""What few steps of a solver get wrong, in closed form for Gaussian data.

A component of variance :math:`c^2` has :math:`\hat x_0 = g_t x_t`, so that every solver without
noise is linear in it, and the flow that it should follow is a scale:

.. math::
    g_t = \frac{\sqrt{\bar\alpha_t}\, c^2}{v_t}, \qquad v_t = \bar\alpha_t c^2 + 1 - \bar\alpha_t,
    \qquad x_s = \sqrt{v_s / v_t}\; x_t

``final_error`` walks a whole chain; what is left of the noise's scale beside c is the error of the
image. ``step_errors`` lets every step start from the exact flow, so that the errors of two steps
cannot cancel, as they would for no other data.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.diffusion.choices import MultistepKind
from ddpm_pipeline.diffusion.multistep import MultistepMove, multistep_moves
from ddpm_pipeline.diffusion.schedule import NoiseSchedule

__all__ = ["Components", "best_chain", "component_groups", "final_error", "step_errors"]

# Variances of a group differ by a factor of 1.3; those below a millionth of the largest are one.
_GROUP_WIDTH, _LEAST_SHARE = 0.25, 1e-6


class Components(NamedTuple):
    """The components of Gaussian data in a few groups.

    Arguments:
        variance: Of a component of each group, float64, shape (G,).
        share: Of all components that are of the group, float64, shape (G,).
    """

    variance: Tensor
    share: Tensor

    @classmethod
    def of(cls, variance: Tensor) -> "Components":
        """Group the variances of all components, of any shape, by their logarithm."""
        variance, group = component_groups(variance)
        count = torch.bincount(group).double()
        return cls(torch.bincount(group, variance) / count, count / count.sum())

    def mean(self, squares: Tensor) -> Tensor:
        """Average over all components, the groups being the last axis."""
        return (squares * self.share).sum(-1)


def component_groups(variance: Tensor) -> tuple[Tensor, Tensor]:
    """Give variances as they are grouped, flat and not too small, and the group of each, int64."""
    variance = variance.double().flatten()
    variance = variance.clamp(min=float(variance.max()) * _LEAST_SHARE)
    _, group = (variance.log() / _GROUP_WIDTH).round().unique(return_inverse=True)
    return variance, group


class _Flow(NamedTuple):
    """The exact flow of the components at the timesteps of chains, float64, (N, K, G)."""

    std: Tensor
    gain: Tensor

    @classmethod
    def of(cls, schedule: NoiseSchedule, chains: Tensor, variance: Tensor) -> "_Flow":
        signal = schedule.alpha_bar(chains)[..., None]
        var = signal * variance + schedule.one_minus_alpha_bar(chains)[..., None]
        return cls(var.sqrt(), signal.sqrt() * variance / var)


def final_error(
    schedule: NoiseSchedule,
    chains: Tensor,
    components: Components,
    *,
    order: int = 2,
    corrector: bool = True,
    kind: MultistepKind = "bh2",
) -> Tensor:
    r"""Give the mean squared error of images of Gaussian data drawn by ``multistep_moves``.

    .. math:: \frac1D \sum_k (G_k - c_k)^2

    G is what the chain makes of noise of variance 1. It is the squared Wasserstein-2 distance
    between the images and the data, per dimension.

    Arguments:
        schedule: Noise schedule with T steps.
        chains: Timesteps, int64, shape (N, K), each strictly decreasing.
        components: Of the data.
        order, corrector, kind: As in ``multistep_moves``.
    Returns:
        Float64, shape (N,).
    Raises:
        ValueError: As ``multistep_moves``.
    """
    options = {"order": order, "corrector": corrector, "kind": kind}
    gain = _Flow.of(schedule, chains, components.variance).gain
    x, predictions = torch.ones_like(gain[:, 0]), []
    for i, move in enumerate(multistep_moves(schedule, chains, **options)):
        predictions.insert(0, gain[:, i] * x)
        x = _stepped(move, x, predictions)
    return components.mean((x - components.variance.sqrt()).square())


def step_errors(
    schedule: NoiseSchedule,
    chains: Tensor,
    components: Components,
    *,
    kind: MultistepKind = "bh2",
    corrector: bool = True,
    order: int = 2,
) -> Tensor:
    r"""Give the sum over steps of the mean squared error that each makes on the exact flow.

    A step starts from exact states and predictions, is corrected by the prediction at the state
    that it leads to, and its error is carried to the image by the exact flow, c/√v_s. Of the last
    state nothing but its prediction is seen, whose distance from c is the error of the last step.

    Arguments, Returns and Raises are those of ``final_error``.
    """
    options = {"order": order, "kind": kind}
    flow, std = _Flow.of(schedule, chains, components.variance), components.variance.sqrt()
    exact = flow.gain * flow.std
    plain = multistep_moves(schedule, chains, corrector=False, **options)
    whole = multistep_moves(schedule, chains, corrector=corrector, **options)
    last = chains.shape[1] - 1
    total = components.mean((exact[:, last] - std).square())
    for i in range(last):
        x = _stepped(plain[i], flow.std[:, i], exact[:, : i + 1].flip(1).unbind(1))
        error = x - flow.std[:, i + 1]
        to_image = std / flow.std[:, i + 1]
        if i + 1 == last:
            error, to_image = flow.gain[:, last] * error, 1.0
        elif corrector:
            seen = [flow.gain[:, i + 1] * x, *exact[:, : i + 1].flip(1).unbind(1)]
            both = (_stepped(move[i + 1], x, seen) for move in (whole, plain))
            corrected, uncorrected = both
            error = error + (corrected - uncorrected) / whole[i + 1].from_x_t[:, None]
        total = total + components.mean((to_image * error).square())
    return total


def _stepped(move: MultistepMove, x: Tensor, predictions: list[Tensor] | tuple) -> Tensor:
    """Take a step of many chains, each weight (N,) beside values (N, G)."""
    terms = zip(move.from_x_0, predictions, strict=False)
    return move.from_x_t[:, None] * x + sum(w[:, None] * x_0_hat for w, x_0_hat in terms)


def best_chain(error: Callable[[Tensor], Tensor], starts: Sequence[Sequence[int]]) -> list[int]:
    """Move timesteps of chains to where an error is least, until none moves; keep the best chain.

    Arguments:
        error: Of many chains, int64 (N, K) to (N,).
        starts: Chains to begin with, of one length, strictly decreasing; their first timestep
            stays.
    Returns:
        The chain, of no larger an error than any that was begun with.
    """
    found = [_descended(error, torch.tensor(start)) for start in starts]
    return min(found, key=lambda chain: float(error(chain[None]))).tolist()


def _descended(error: Callable[[Tensor], Tensor], chain: Tensor) -> Tensor:
    least = float(error(chain[None]))
    for reach in (4, 2, 1, 0):
        while True:
            tried = _moved(chain, reach)
            found, place = error(tried).min(0)
            if not float(found) < least * (1 - 1e-5):
                break
            least, chain = float(found), tried[place]
    return chain


def _moved(chain: Tensor, reach: int) -> Tensor:
    """Give a chain, and those with one timestep elsewhere, or it and all below by one or two.

    Arguments:
        reach: How many fifths of the way to either neighbour a timestep may go; it may go by one
            and two in any case.
    """
    near = torch.tensor([-2, -1, 1, 2])
    shares = torch.arange(1, reach + 1, dtype=torch.float64) / 5
    bounds, found = torch.cat([chain, chain.new_tensor([-1])]), [chain[None]]
    for i in range(1, len(chain)):
        up, down = (shares * (bounds[i - 1 : i + 1] - bounds[i : i + 2])[:, None]).round().long()
        shifts = torch.cat([up, -down, near]).unique()
        one = chain.repeat(len(shifts), 1)
        one[:, i] += shifts
        below = chain.repeat(len(near), 1)
        below[:, i:] += near[:, None]
        found += [one, below]
    chains = torch.cat(found)
    return chains[(chains.diff(dim=1) < 0).all(1) & (chains[:, -1] >= 0)]
