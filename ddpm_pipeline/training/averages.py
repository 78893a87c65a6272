r"""Averages of the weights while they are trained.

.. math::
    \bar\theta_i = d_i\, \bar\theta_{i-1} + (1 - d_i)\, \theta_i, \qquad
    d_i = \min\big(d,\; 1 - (1 + (i-1)/\gamma)^{-p}\big)

With the defaults of training, γ = 19 and p = 1, d_i = (i-1)/(18 + i): the average forgets the
first noise within a few hundred updates, where γ = 1 and p = 3/4 takes tens of thousands to reach
a decay of 0.999. Update i then counts as i (i+1) ... (i+17), next to i^18: until d stops it, after
19,000 updates, it is the power-function average of sigma_rel 0.048 (see ``power_averages``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from diffusers.training_utils import EMAModel

from ddpm_pipeline.training.power_averages import PowerAverages

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["WeightAverages"]


class WeightAverages:
    """Averages of the same parameters, a ``diffusers.EMAModel`` for each decay.

    Arguments:
        parameters: The parameters, by name; of sharded ones, this process's parts.
        decays: The limits d; none keeps no average, and ``applied`` then changes nothing.
        inv_gamma, power: γ and p.
        sigma_rels: Lengths of power-function averages beside them, ``post_hoc``.
    """

    def __init__(
        self,
        parameters: dict[str, Tensor],
        decays: Sequence[float],
        *,
        inv_gamma: float,
        power: float,
        sigma_rels: Sequence[float] = (),
    ) -> None:
        self._parameters = parameters
        self.post_hoc = PowerAverages(parameters, sigma_rels)
        self.decays = tuple(decays)
        self._averages = {
            decay: EMAModel(
                parameters.values(),
                decay=decay,
                use_ema_warmup=power > 0,
                min_decay=decay if power == 0 else 0.0,
                inv_gamma=inv_gamma,
                power=power,
                foreach=True,
            )
            for decay in decays
        }

    def update(self) -> None:
        """Move every average towards the parameters, which an update has changed."""
        parameters = list(self._parameters.values())
        for average in self._averages.values():
            average.optimization_step += 1
            _move(average.shadow_params, parameters, average.get_decay(average.optimization_step))
        self.post_hoc.update()

    @contextmanager
    def applied(self, decay: float | None = None) -> Iterator[None]:
        """Put an average in the place of the parameters for a while, the first unless told."""
        if not self.decays:
            yield
            return
        average = self._averages[self.decays[0] if decay is None else decay]
        own = [parameter.detach().clone() for parameter in self._parameters.values()]
        average.copy_to(self._parameters.values())
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(list(self._parameters.values()), own)

    def state(self, decay: float) -> dict[str, Tensor]:
        """Give the average of that decay, by parameter name."""
        return dict(zip(self._parameters, self._averages[decay].shadow_params, strict=True))

    def load(self, decay: float, state: Mapping[str, Tensor], updates: int) -> None:
        """Go on with an average from its ``state`` after that many updates."""
        average = self._averages[decay]
        average.optimization_step = updates
        for name, shadow in self.state(decay).items():
            shadow.copy_(state[name])

    def groups(self) -> dict[str, dict[str, Tensor]]:
        """Give all averages, by the names that they have in a checkpoint."""
        lengths = self.post_hoc.sigma_rels
        return {f"average-{decay}": self.state(decay) for decay in self.decays} | {
            f"post-hoc-{sigma_rel}": self.post_hoc.state(sigma_rel) for sigma_rel in lengths
        }

    def load_groups(self, groups: Mapping[str, Mapping[str, Tensor]], updates: int) -> None:
        """Go on with all averages from their ``groups`` after that many updates."""
        for decay in self.decays:
            self.load(decay, groups[f"average-{decay}"], updates)
        for sigma_rel in self.post_hoc.sigma_rels:
            self.post_hoc.load(sigma_rel, groups[f"post-hoc-{sigma_rel}"], updates)


@torch.no_grad()
def _move(average: list[Tensor], parameters: list[Tensor], decay: float) -> None:
    """Move an average towards the parameters, as ``EMAModel.step`` does, to the bit.

    A lerp reads and writes each tensor once, and EMAModel's two subtractions twice. From half way
    on it begins at the other end, and rounds otherwise: that concerns the first few updates.
    """
    if decay > 0.5:
        torch._foreach_lerp_(average, parameters, 1 - decay)
    else:
        behind = torch._foreach_sub(average, parameters)  # noqa: SLF001
        torch._foreach_sub_(average, behind, alpha=1 - decay)
