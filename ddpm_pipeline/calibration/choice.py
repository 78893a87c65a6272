"""What a calibrated model samples with from now on: never what draws worse images than before.

    options = sampling_options(config, scheduler, distances)       {"variance_type": "analytic"}

Variances and steps that are best for the likelihood can be worse for images. So "auto" keeps what
the model samples with, unless Fréchet distances were measured and another row of the table is

1. not above the model's own row at any K, and below it at one or more, and
2. as good for DDIM: its spacing is for stock schedulers the one that they have now, or the row
   "ddim" of its spacing is not above that of the model's at any K.

Of several such rows it takes the one whose distances have the least geometric mean. A model that
was saved with a solver keeps all: no row of the table is drawn by it. Options that the user gave
are taken as they are. What few steps are drawn with is another choice (``advice``), which comes
before this one where ``takes_advice``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ddpm_pipeline.calibration.config import SAMPLERS, CalibrateConfig
from ddpm_pipeline.diffusion import LEARNED_VARIANCES
from ddpm_pipeline.schedulers import CALIBRATED_VARIANCES, DDPMScheduler

__all__ = ["sampling_options", "takes_advice"]

Distances = Mapping[str, Mapping[int, float]]


def sampling_options(
    config: CalibrateConfig, scheduler: DDPMScheduler, distances: Distances
) -> dict[str, str]:
    """Choose the options of the model's scheduler that change.

    Arguments:
        config: The options of the calibration.
        scheduler: That the model was saved with.
        distances: By "sampler spacing" and K; empty if none were measured.
    """
    spacing = config.timestep_spacing
    given = {} if spacing is None else {"timestep_spacing": spacing}
    if scheduler.variance_type in LEARNED_VARIANCES or config.variance_type == "as_saved":
        return given
    if config.variance_type in CALIBRATED_VARIANCES:
        return {"variance_type": config.variance_type, **given}
    return (
        _best_for_images(scheduler, distances, [spacing] if spacing else config.spacings) | given
    )


def takes_advice(config: CalibrateConfig, scheduler: DDPMScheduler) -> bool:
    """Tell whether a model's solver and its number of steps are left to the calibration.

    A solver that a user chose stays. One that names its K was chosen by a calibration before.
    """
    own = scheduler.solver
    is_open = own.name == "ddpm" or own.num_inference_steps is not None
    is_auto = config.variance_type == "auto" and config.timestep_spacing is None
    return config.solver == "auto" and is_auto and is_open


def _best_for_images(
    scheduler: DDPMScheduler, distances: Distances, spacings: Sequence[str]
) -> dict[str, str]:
    """Find the variance and spacing that drew better images than the model's own; {} if none."""
    if scheduler.solver.name != "ddpm":
        return {}
    own_variance = scheduler.variance_type.removesuffix("_log")
    own = distances.get(f"{own_variance} {scheduler.timestep_spacing}")
    if own is None:
        return {}
    better = {}
    for name, choice in SAMPLERS.items():
        for spacing in spacings if choice.has_bound else ():
            row = distances.get(f"{name} {spacing}")
            if row and _is_better(row, own) and _keeps_ddim(scheduler, distances, spacing):
                better[choice.variance_type, spacing] = math.prod(row[K] / own[K] for K in row)
    if not better:
        return {}
    variance, spacing = min(better, key=better.__getitem__)
    found = {"variance_type": variance, "timestep_spacing": spacing}
    return {k: v for k, v in found.items() if not (k == "variance_type" and v == own_variance)}


def _is_better(row: Mapping[int, float], own: Mapping[int, float]) -> bool:
    """Tell whether no distance of a row is above another row's, and one is below."""
    return all(row[K] <= own[K] for K in own) and any(row[K] < own[K] for K in own)


def _keeps_ddim(scheduler: DDPMScheduler, distances: Distances, spacing: str) -> bool:
    """Tell whether `ddpm sample`, which is DDIM's on a stock spacing, draws no worse than now."""
    now = scheduler.config.timestep_spacing
    then = DDPMScheduler.from_config(scheduler.config, timestep_spacing=spacing)
    if then.config.timestep_spacing == now:
        return True
    rows = [distances.get(f"ddim {s}") for s in (now, then.config.timestep_spacing)]
    return None not in rows and all(rows[1][K] <= rows[0][K] for K in rows[0])
