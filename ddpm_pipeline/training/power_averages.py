r"""Averages of the weights whose length is a share of the run: power functions of the update.

.. math::
    \bar\theta_\gamma(t) = \sum_{i=1}^{t} w_i\, \theta_i, \qquad
    w_i = \int_{i-1}^{i} p_{\gamma,t}(\tau)\, d\tau, \qquad
    p_{\gamma,t}(\tau) = (\gamma + 1)\, \frac{\tau^\gamma}{t^{\gamma+1}} \text{ on } [0, t]

    \bar\theta_\gamma(t) = \beta_t\, \bar\theta_\gamma(t - 1) + (1 - \beta_t)\, \theta_t, \qquad
    \beta_t = (1 - 1/t)^{\gamma+1}

Their length, ``lengths`` says, is a share of t, whatever t is.

A run keeps two and writes them down now and then; ``profiles`` makes any other length of these.

Source: Karras et al. 2024, Analyzing and Improving the Training Dynamics of Diffusion Models
(arXiv:2312.02696), section 3 and appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ddpm_pipeline.training.lengths import gamma_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PowerAverages"]


class PowerAverages:
    """Power-function averages of the same parameters, in their precision.

    Arguments:
        parameters: The parameters, by name; of sharded ones, this process's parts.
        sigma_rels: The lengths; none keeps no average.
    """

    def __init__(self, parameters: Mapping[str, Tensor], sigma_rels: Sequence[float]) -> None:
        self._parameters, self._updates = parameters, 0
        self.sigma_rels = tuple(sigma_rels)
        self._exponents = {sigma_rel: gamma_of(sigma_rel) + 1 for sigma_rel in sigma_rels}
        self._averages = {
            sigma_rel: [parameter.detach().clone() for parameter in parameters.values()]
            for sigma_rel in sigma_rels
        }

    @torch.no_grad()
    def update(self) -> None:
        """Move every average towards the parameters, which an update has changed.

        The first update leaves nothing of what they were made with.
        """
        self._updates += 1
        for sigma_rel, average in self._averages.items():
            weight = _weight(self._exponents[sigma_rel], self._updates)
            torch._foreach_lerp_(average, list(self._parameters.values()), weight)

    def state(self, sigma_rel: float) -> dict[str, Tensor]:
        """Give the average of that length, by parameter name."""
        return dict(zip(self._parameters, self._averages[sigma_rel], strict=True))

    def load(self, sigma_rel: float, state: Mapping[str, Tensor], updates: int) -> None:
        """Go on with an average from its ``state`` after that many updates."""
        self._updates = updates
        for name, average in self.state(sigma_rel).items():
            average.copy_(state[name])


def _weight(exponent: float, t: int) -> float:
    """Give 1 - β_t, to the last digits also where β_t is next to 1."""
    return 1.0 if t == 1 else -math.expm1(exponent * math.log1p(-1 / t))
