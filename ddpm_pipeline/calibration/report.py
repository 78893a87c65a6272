r"""What a calibrated model costs in bits per dimension and in Fréchet distance, as tables over K.

A row is a sampler and a spacing. Bits per dimension come from the calibration without forward
passes; distances need images of every row and every K.

==============  =======================================================
sampler         reverse steps
==============  =======================================================
fixed_large     DDPM with variance beta
fixed_small     DDPM with the posterior's variance
analytic        DDPM with the calibrated variance
spectral        DDPM with a calibrated variance for each frequency
ddim            DDIM, eta = 0
analytic_ddim   DDIM, eta = 0, with the calibrated variance
spectral_ddim   DDIM, eta = 0, with a calibrated variance for each frequency
multistep       solver "multistep", order 2, without noise
multistep_3     the same, order 3
multistep_sde   order 2, with a share of noise of 0.5
spectral_steps  solver "spectral", without noise
==============  =======================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ddpm_pipeline.calibration.config import SAMPLERS, SamplerChoice
from ddpm_pipeline.diffusion import NoiseSchedule
from ddpm_pipeline.schedulers import (
    Calibration,
    chain_bits_per_dim,
    timesteps_of,
)

__all__ = [
    "CalibrationReport",
    "bits_per_dim_table",
    "distance_table",
    "measured_samplers",
]


Table = dict[str, dict[int, float]]


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """The costs of a calibrated model by "sampler spacing" and K, and how sure they are."""

    bits_per_dim: Table
    standard_error: float
    """Of the full chain's bits per dimension."""
    frechet_distance: Table
    num_frechet_images: int
    num_images: int
    num_forwards: int
    features: str | None
    variance_type: str
    """What the model samples with from now on, if the calibration is saved with it."""
    timestep_spacing: str
    data: str
    """Hash of the images."""
    advice: str | None = None
    """How few steps are as good as T, as a sentence; None where nothing tells."""
    solver: str = "ddpm"
    """That the model samples with from now on, and its number of steps, if it has one."""
    num_inference_steps: int | None = None
    eta: float = 0.0
    """Share of noise in the steps of that solver."""

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return asdict(self)

    def table(self) -> str:
        """Give both tables as text, and the advice below them."""
        return "\n\n".join([self.tables(), *filter(None, [self.advice])])

    def tables(self) -> str:
        """Give both tables as text, without one that has no rows."""
        error = f"± {self.standard_error:.2g} at K = T"
        note = f"{self.num_forwards:,} forwards over {self.num_images:,} images"
        parts = []
        if self.bits_per_dim:
            parts.append(_text(f"bits/dim ({error}; {note})", self.bits_per_dim, ".3f"))
        if self.frechet_distance:
            title = f"Fréchet distance ({self.num_frechet_images:,} images; {self.features})"
            parts.append(_text(title, self.frechet_distance, ".4g"))
        if not parts:
            parts = [
                f"no rows: none of these samplers takes these steps, or has its spectrum ({note})"
            ]
        return "\n\n".join(parts)


def _text(title: str, table: Table, form: str) -> str:
    steps = sorted({K for row in table.values() for K in row})
    width = max(map(len, table))
    header = f"{'':{width}}" + "".join(f"{f'K = {K}':>10}" for K in steps)
    lines = [
        f"{name:{width}}"
        + "".join(f"{format(row[K], form) if K in row else '':>10}" for K in steps)
        for name, row in table.items()
    ]
    return "\n".join([title, header, *lines])


def bits_per_dim_table(
    calibration: Calibration,
    schedule: NoiseSchedule,
    samplers: Sequence[str],
    spacings: Sequence[str],
    steps: Sequence[int],
) -> Table:
    """Give the bound of every row and every K, without forward passes.

    Arguments:
        calibration: Of the model.
        schedule: That it was made with.
        samplers: Keys of SAMPLERS; those whose steps are not DDPM's have no bound and are left
            out, as are spectral ones of a calibration without a spectrum.
        spacings: Of SPACINGS and CALIBRATED_SPACINGS.
        steps: Values of K.
    """
    table: Table = {}
    for sampler in measured_samplers(samplers, calibration):
        if not SAMPLERS[sampler].has_bound:
            continue
        variance_type = SAMPLERS[sampler].variance_type
        for spacing in spacings:
            chains = {
                K: timesteps_of(calibration, schedule, K, spacing, variance_type) for K in steps
            }
            table[f"{sampler} {spacing}"] = {
                K: chain_bits_per_dim(calibration, schedule, chain, variance_type=variance_type)
                for K, chain in chains.items()
            }
    return table


def measured_samplers(samplers: Sequence[str], calibration: Calibration) -> list[str]:
    """List the samplers that a calibration knows: none that need a spectrum without one."""
    if calibration.spectrum is not None:
        return list(samplers)
    return [sampler for sampler in samplers if not _needs_spectrum(SAMPLERS[sampler])]


def _needs_spectrum(choice: SamplerChoice) -> bool:
    return choice.variance_type == "spectral" or choice.solver is not None


def distance_table(
    distance: Callable[[str, str, int], float],
    samplers: Sequence[str],
    spacings: Sequence[str],
    steps: Sequence[int],
    T: int,
) -> Table:
    """Measure the Fréchet distance of every row and K, once for K = T: all spacings are one.

    Solvers that use earlier predictions again are for few steps: they have no K = T, and no other
    spacing if they have the one that is made for them.

    Arguments:
        distance: From sampler, spacing and K.
        samplers, spacings: As for ``bits_per_dim_table``.
        steps: Values of K.
        T: Length of the full chain.
    """
    table: Table = {}
    for sampler in samplers:
        own, order = _own_rows(SAMPLERS[sampler], spacings)
        full = {}
        if T in steps and SAMPLERS[sampler].solver is None:
            full = {T: distance(sampler, own[0], T)}
        for spacing in own:
            few = {K: distance(sampler, spacing, K) for K in steps if order <= K < T}
            if few or full:
                table[f"{sampler} {spacing}"] = few | full
    return table


def _own_rows(choice: SamplerChoice, spacings: Sequence[str]) -> tuple[Sequence[str], int]:
    """Give the spacings of a sampler's rows, and the fewest steps that it takes."""
    if choice.solver is not None and "optimal_samples" in spacings:
        spacings = ["optimal_samples"]
    return spacings, choice.fewest_steps
