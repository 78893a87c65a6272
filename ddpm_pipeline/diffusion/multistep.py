r"""Steps of high order: the network's answers of earlier steps are used again.

Without noise the process is an ordinary differential equation. In :math:`\lambda = \frac12 \log
\mathrm{SNR}`, with :math:`\alpha = \sqrt{\bar\alpha}` and :math:`\sigma = \sqrt{1-\bar\alpha}`,
its solution from t to s is

.. math::
    x_s = \frac{\sigma_s}{\sigma_t}\, x_t + \alpha_s \int_0^h e^{-(h-u)}\,
    \hat x_0(\lambda_t + u)\, du, \qquad h = \lambda_s - \lambda_t

A step of order p puts the polynomial through the last p predictions of x_0 under the integral. A
corrector first moves x_t by the difference that the newest prediction would have made to the step
that led to it. All of it is linear, so that a step is a row of weights, made with the chain:

.. math::
    x_s = c\, x_t + c_0\, \hat x_0(t) + c_1\, \hat x_0(t') + c_2\, \hat x_0(t'') + \dots

t', t'', ... are the timesteps before t. Order 1 without corrector is DDIM.

With a share of noise :math:`\eta` the same images follow from a stochastic equation: what a step
keeps of x_t and the kernel of the integral fall off faster, and noise makes up for it,

.. math::
    x_s = \frac{\sigma_s}{\sigma_t}\, e^{-\eta^2 h}\, x_t + \alpha_s \int_0^h
    (1 + \eta^2)\, e^{-(1 + \eta^2)(h-u)}\, \hat x_0(\lambda_t + u)\, du
    + \sigma_s \sqrt{1 - e^{-2 \eta^2 h}}\, \epsilon

It forgets the errors of earlier steps, which pays where steps are many. Paths are rough then, and
orders above 2 converge with order 2.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.common import check_choice, check_integer
from ddpm_pipeline.diffusion.choices import (
    MAX_ORDER,
    MULTISTEP_KINDS,
    MultistepKind,
    check_eta,
)
from ddpm_pipeline.diffusion.schedule import NoiseSchedule
from ddpm_pipeline.diffusion.spacing import check_chain

__all__ = ["MultistepMove", "multistep_moves"]

# Below this h the recurrence of the integrals loses digits, and their series has converged.
_SERIES_BELOW = 1.0
_SERIES_TERMS = 20


class MultistepMove(NamedTuple):
    """Weights of one step, or of the same step of many chains: float64 tensors of one shape.

    Arguments:
        from_x_t: Of x_t in x_s.
        noise: Standard deviation of the noise that the step adds.
        from_x_0: Of the predictions of x_0 in x_s, the newest first: 1 to MAX_ORDER + 1 of them.
    """

    from_x_t: Tensor
    noise: Tensor
    from_x_0: tuple[Tensor, ...]


def multistep_moves(
    schedule: NoiseSchedule,
    timesteps: Sequence[int] | Tensor,
    *,
    order: int = 2,
    corrector: bool = True,
    kind: MultistepKind = "bh2",
    eta: float = 0.0,
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
        kind: One of MULTISTEP_KINDS: how a single difference of two predictions is weighed, by
            B(h)/2 rather than by its integral. DPM-Solver++(2M) is order 2 with bh2 and no
            corrector.
        eta: Share of noise, in [0, 1]: 0 adds none, and with 1 a step of order 1 without
            corrector is DDPM's with the posterior's variance.
    Returns:
        K steps, whose weights have shape () or (N,).
    Raises:
        ValueError: If the timesteps are no chain, an option is not allowed, or kind is bh1 and
            the chain starts at zero SNR, where its B(h) = h is infinite.
    Source: Zhao et al. 2023 (arXiv:2302.04867), section 3; for order 2 without corrector, Lu et
        al. 2022 (arXiv:2211.01095), algorithm 2; with noise, Xue et al. 2023 (arXiv:2309.05019),
        its data prediction for a constant tau = eta.
    """
    check_integer("order", order, most=MAX_ORDER)
    check_choice("kind", kind, MULTISTEP_KINDS)
    check_eta(eta)
    if not isinstance(timesteps, Tensor) or timesteps.ndim < 2:
        timesteps = torch.tensor(check_chain(timesteps, len(schedule)))
    chain = _Nodes.of(schedule, timesteps)
    K = timesteps.shape[-1]
    if kind == "bh1" and corrector and K > 1 and chain.log_snr[..., 0].isinf().any():
        raise ValueError("kind must be 'bh2' for a chain that starts at zero SNR, got 'bh1'")
    orders = [min(order, i + 1, K - i) for i in range(K)]
    before = [0, *orders[:-1]] if corrector else [0] * K
    moves: dict[int, MultistepMove] = {}
    for alike in dict.fromkeys(zip(orders, before, strict=True)):
        places = [i for i in range(K) if (orders[i], before[i]) == alike]
        found = _moves(chain, torch.tensor(places), *alike, kind, eta)
        columns = zip(*(weight.unbind(-1) for weight in found), strict=True)
        moves |= {i: MultistepMove(*c[:2], c[2:]) for i, c in zip(places, columns, strict=True)}
    return [moves[i] for i in range(K)]


class _Nodes(NamedTuple):
    """Timesteps of a chain, and the data after the last; tensors (..., K + 1)."""

    signal: Tensor
    noise: Tensor
    log_snr: Tensor  # half of it: lambda

    @classmethod
    def of(cls, schedule: NoiseSchedule, timesteps: Tensor) -> "_Nodes":
        t = torch.cat([timesteps, torch.full_like(timesteps[..., :1], -1)], dim=-1)
        signal, noise = schedule.alpha_bar(t).sqrt(), schedule.one_minus_alpha_bar(t).sqrt()
        return cls(signal, noise, schedule.snr(t).log() / 2)

    def at(self, places: Tensor) -> "_Nodes":
        return _Nodes(*(levels.index_select(-1, places) for levels in self))


def _moves(
    chain: _Nodes,
    places: Tensor,
    order: int,
    order_before: int,
    kind: MultistepKind,
    eta: float,
) -> list[Tensor]:
    """Give the weights of the steps at places of a chain: of x_t, of noise, and of predictions.

    Arguments:
        order: Of these steps.
        order_before: Of those before them, which are corrected; 0 corrects nothing.
    """
    past = [chain.at(places - k) for k in range(max(order, order_before + 1))]
    end = chain.at(places + 1)
    predictor = _weights(past[:order], end, kind, eta)
    weights = [*predictor, *[torch.zeros_like(predictor[0])] * (len(past) - order)]
    kept, added = end.noise / past[0].noise, torch.zeros_like(end.noise)
    if eta**2:
        rate = eta**2 * (end.log_snr - past[0].log_snr)
        kept, added = kept * torch.exp(-rate), end.noise * torch.expm1(-2 * rate).neg().sqrt()
    if order_before:
        before = past[1 : order_before + 1]
        predicted = [0, *_weights(before, past[0], kind, eta)]
        corrected = _weights(before, past[0], kind, eta, is_corrector=True)
        weights = [
            w + kept * (new - old)
            for w, new, old in zip(weights, corrected, predicted, strict=True)
        ]
    return [kept, added, *weights]


def _weights(
    past: Sequence[_Nodes],
    end: _Nodes,
    kind: MultistepKind,
    eta: float,
    *,
    is_corrector: bool = False,
) -> list[Tensor]:
    """Weigh the predictions for a step from past[0] to end, those of past in their order.

    The polynomial goes through them, and for a corrector first through the prediction at the
    end. With theta = u/h it is x_0(past[0]) + sum_k l_k(theta) (x_0(k) - x_0(past[0])).
    """
    start = past[0]
    h = end.log_snr - start.log_snr
    rate = (1 + eta**2) * h
    moments = _moments(rate)
    # h over the distance of each other node, which is 0 for one at zero SNR.
    inverse = [torch.ones_like(h)] * is_corrector
    inverse += [h / (node.log_snr - start.log_snr) for node in past[1:]]
    if len(inverse) == 1:
        b = rate if kind == "bh1" else moments[0]
        differences = [b / 2 * inverse[0]]
    else:
        differences = [_integral(inverse, k, moments) for k in range(len(inverse))]
    weights = [moments[0] - sum(differences), *differences]
    if is_corrector:
        weights[:2] = weights[1::-1]
    return [end.signal * weight for weight in weights]


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
