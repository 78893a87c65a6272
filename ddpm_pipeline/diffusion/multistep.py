r"""Steps of high order: the network's answers of earlier steps are used again.

Without noise the process is an ordinary differential equation. In :math:`\lambda = \frac12 \log
\mathrm{SNR}`, with :math:`\alpha = \sqrt{\bar\alpha}` and :math:`\sigma = \sqrt{1-\bar\alpha}`,
its solution from t to s is

.. math::
    x_s = \frac{\sigma_s}{\sigma_t}\, x_t + \alpha_s \int_0^h e^{-(h-u)}\,
    \hat x_0(\lambda_t + u)\, du, \qquad h = \lambda_s - \lambda_t

A step of order p puts the polynomial through the last p predictions of x_0 under the integral; a
corrector puts the newest prediction in as well and takes the step that led to it again. All of it
is linear, so that a step is a row of weights in float64 (``MultistepMove``), made with the chain:

.. math::
    y_t = c\, y_{t'} + c_0\, \hat x_0(t) + c_1\, \hat x_0(t') + \dots, \qquad
    x_s = p\, y_t + p_0\, \hat x_0(t) + p_1\, \hat x_0(t') + \dots

t' is the timestep before t, and y the state as it was corrected. Order 1 is DDIM.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.common import check_choice, check_integer
from ddpm_pipeline.diffusion.choices import MULTISTEP_KINDS, MultistepKind
from ddpm_pipeline.diffusion.schedule import NoiseSchedule
from ddpm_pipeline.diffusion.spacing import check_chain

__all__ = ["MAX_ORDER", "MultistepMove", "multistep_moves"]

MAX_ORDER = 3
# Below this h the recurrence of the integrals loses digits, and their series has converged.
_SERIES_BELOW = 1.0
_SERIES_TERMS = 20


class MultistepMove(NamedTuple):
    """Weights of one step, or of the same step of many chains: float64 tensors of one shape.

    Arguments:
        state: Of y at the timestep before, in y at this one; 0 if nothing is corrected.
        corrected: Of the predictions of x_0 in y, the newest first; empty if y is x_t itself.
        kept: Of y in x_s.
        predicted: Of the predictions of x_0 in x_s, the newest first.
    """

    state: Tensor
    corrected: tuple[Tensor, ...]
    kept: Tensor
    predicted: tuple[Tensor, ...]


def multistep_moves(
    schedule: NoiseSchedule,
    timesteps: Sequence[int] | Tensor,
    *,
    order: int = 2,
    corrector: bool = True,
    kind: MultistepKind = "bh2",
) -> list[MultistepMove]:
    """Give the weights of all steps down a chain, the last of which ends at the data.

    The order grows from 1 as predictions come in and falls to 1 at the data, where an integral
    over an endless h leaves room for the newest prediction alone.

    Arguments:
        schedule: Noise schedule with T steps.
        timesteps: The chain, strictly decreasing in [0, T-1], shape (K,); or many chains of the
            same length, an int64 tensor (N, K), which is not checked.
        order: Of the predictor, 1 to 3.
        corrector: Whether each step is taken again with the prediction that it led to.
        kind: One of MULTISTEP_KINDS: where a single difference of two predictions is to be
            weighed, by B(h)/2 rather than by its integral. DPM-Solver++(2M) is order 2 with bh2
            and no corrector.
    Returns:
        K steps, whose weights have shape () or (N,).
    Raises:
        ValueError: If the timesteps are no chain, an option is not allowed, or kind is bh1 and
            the chain starts at zero SNR, where its B(h) = h is infinite.
    Source: Zhao et al. 2023 (arXiv:2302.04867), section 3; for order 2 without
        corrector, Lu et al. 2022 (arXiv:2211.01095), algorithm 2.
    """
    check_integer("order", order, most=MAX_ORDER)
    check_choice("kind", kind, MULTISTEP_KINDS)
    if not isinstance(timesteps, Tensor) or timesteps.ndim < 2:
        timesteps = torch.tensor(check_chain(timesteps, len(schedule)))
    nodes = _nodes(schedule, timesteps)
    if kind == "bh1" and corrector and len(nodes) > 2 and bool(nodes[0].log_snr.isinf().any()):
        raise ValueError("kind must be 'bh2' for a chain that starts at zero SNR, got 'bh1'")
    K = len(nodes) - 1
    orders = [min(order, i + 1, K - i) for i in range(K)]
    moves = []
    for i, p in enumerate(orders):
        kept, predicted = _weights(nodes[i + 1], nodes[i::-1][:p], (), kind)
        state, corrected = torch.zeros_like(kept), ()
        if corrector and i:
            state, corrected = _weights(
                nodes[i], nodes[i - 1 :: -1][: orders[i - 1]], (nodes[i],), kind
            )
        moves.append(MultistepMove(state, corrected, kept, predicted))
    return moves


class _Node(NamedTuple):
    """A timestep of a chain."""

    signal: Tensor
    noise: Tensor
    log_snr: Tensor  # half of it: lambda


def _nodes(schedule: NoiseSchedule, timesteps: Tensor) -> list[_Node]:
    """Give the timesteps of a chain one by one, and then the data."""
    ends = torch.full_like(timesteps[..., :1], -1)
    t = torch.cat([timesteps, ends], dim=-1)
    signal, noise = schedule.alpha_bar(t).sqrt(), schedule.one_minus_alpha_bar(t).sqrt()
    log_snr = schedule.snr(t).log() / 2
    return list(map(_Node, signal.unbind(-1), noise.unbind(-1), log_snr.unbind(-1)))


def _weights(
    end: _Node, past: Sequence[_Node], ahead: Sequence[_Node], kind: MultistepKind
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Weigh the state and the predictions for a step from past[0] to end.

    The polynomial goes through the predictions at ``ahead`` and ``past``, in which order the
    weights come. With theta = u/h it is x_0(past[0]) + sum_k l_k(theta) (x_0(k) - x_0(past[0])).
    """
    start = past[0]
    h = end.log_snr - start.log_snr
    moments = _moments(h)
    # h over the distance of each other node, which is 0 for one at zero SNR.
    inverse = [torch.ones_like(h) for _ in ahead]
    inverse += [h / (node.log_snr - start.log_snr) for node in past[1:]]
    if len(inverse) == 1:
        b = h if kind == "bh1" else moments[0]
        of_differences = [b / 2 * inverse[0]]
    else:
        of_differences = [_integral(inverse, k, moments) for k in range(len(inverse))]
    of_differences = [end.signal * weight for weight in of_differences]
    of_start = end.signal * moments[0] - sum(of_differences)
    count = len(ahead)
    return end.noise / start.noise, (
        *of_differences[:count],
        of_start,
        *of_differences[count:],
    )


def _integral(inverse: Sequence[Tensor], k: int, moments: Sequence[Tensor]) -> Tensor:
    """Integrate l_k, which is 1 at node k and 0 at theta = 0 and at the other nodes.

    As a product of (theta q_j - 1) q_k/(q_j - q_k), q being 1/theta of a node: finite for q = 0.
    """
    q_k = inverse[k]
    polynomial, scale = [torch.ones_like(q_k)], q_k
    for j, q_j in enumerate(inverse):
        if j != k:
            shifted = [torch.zeros_like(q_k), *(q_j * c for c in polynomial)]
            polynomial = [a - b for a, b in zip(shifted, [*polynomial, 0], strict=True)]
            scale = scale * q_k / (q_j - q_k)
    return scale * sum(c * m for c, m in zip(polynomial, moments[1:], strict=False))


def _moments(h: Tensor) -> list[Tensor]:
    r"""Integrate :math:`e^{-(h-u)} (u/h)^i` over u from 0 to h, for i = 0, ..., MAX_ORDER."""
    found = [-torch.expm1(-h)]
    for i in range(1, MAX_ORDER + 1):
        by_parts = 1 - i * found[-1] / h
        # h sum_j (-h)^j i!/(i + j + 1)!, where by_parts is a small difference.
        small = h.clamp(max=_SERIES_BELOW)
        term, series = small / (i + 1), torch.zeros_like(h)
        for j in range(_SERIES_TERMS):
            series, term = series + term, -term * small / (i + j + 2)
        found.append(torch.where(h < _SERIES_BELOW, series, by_parts))
    return found
