r"""What `ddpm calibrate` recommends: how few steps of which solver are as good as all T.

    advice = by_distance(distances, T=1000)              where images were compared
    advice = by_closed_form(calibration, schedule)       where they were not
    advice.sentence

By distance it is the row with the fewest steps that is at most the best distance of all T steps;
where there is none, the nearest row is named, which a model is not saved with.
The closed form knows Gaussian images of the measured spectrum alone: there it is the fewest steps
of solver "multistep" whose images are within two of 256 levels of the data,

.. math:: 127.5\, \sqrt{\tfrac1D \textstyle\sum_k (G_k - c_k)^2} \le 2

with G what the steps make of white noise and c the standard deviation of a component; where the
chain does not begin in white noise, as much more than 2 as exact steps would be off. It compares
with the data alone, and not with what other steps of the network draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ddpm_pipeline.calibration.config import SAMPLERS
from ddpm_pipeline.diffusion import Components, NoiseSchedule, final_error, spaced_timesteps
from ddpm_pipeline.schedulers import Calibration, Solver, timesteps_of

__all__ = ["Advice", "by_closed_form", "by_distance"]

Distances = Mapping[str, Mapping[int, float]]

_CLOSED_FORM_STEPS = (10, 12, 15, 20, 25, 50)
_GREY_LEVELS = 127.5  # of 256, in a unit of images in [-1, 1]
_ENOUGH = 2.0  # levels
_TOLD = 0.5  # levels that the start of a chain must cost to be named
_DDIM_STEPS = 100


@dataclass(frozen=True)
class Advice:
    """What a model had better sample with.

    Arguments:
        sentence: For a person, with the figures that it follows from.
        solver: With its K.
        options: Of the scheduler that change: its spacing, and its variance where it matters.
        is_as_good: Whether they were found as good as all steps; false for the nearest of few.
    """

    sentence: str
    solver: Solver
    options: dict[str, str] = field(default_factory=dict)
    is_as_good: bool = True


def by_distance(distances: Distances, T: int, num_images: int) -> Advice | None:
    """Find the fewest steps that are as good as T, or the best of few where none are.

    Arguments:
        distances: Fréchet distances by "sampler spacing" and K, some of them of K = T.
        T: Length of the full chain.
        num_images: Of every distance.
    Returns:
        None if no full chain was measured, or no other.
    """
    full = {name: row[T] for name, row in distances.items() if T in row}
    few = {(K, name): d for name, row in distances.items() for K, d in row.items() if K < T}
    if not full or not few:
        return None
    best_full = min(full, key=full.__getitem__)
    as_good = [place for place, d in few.items() if d <= full[best_full]]
    steps = min((K for K, _ in as_good), default=None)
    among = few if steps is None else [place for place in as_good if place[0] == steps]
    K, name = min(among, key=lambda place: (few[place], place))
    sampler, spacing = name.split()
    choice = SAMPLERS[sampler]
    figures = (
        f"a Fréchet distance of {few[K, name]:.4g} against {full[best_full]:.4g} of "
        f"{best_full.split()[0]}, {num_images:,} images"
    )
    said = "are as good as" if steps is not None else "come nearest to"
    solver = choice.solver or Solver("ddpm" if choice.eta is None else "ddim")
    return Advice(
        f"For this model {K} steps of {sampler} on {spacing} steps {said} {T:,}: {figures}.",
        Solver.of(solver, num_inference_steps=K),
        {"timestep_spacing": spacing}
        | ({} if choice.solver else {"variance_type": choice.variance_type}),
        is_as_good=steps is not None,
    )


def by_closed_form(calibration: Calibration, schedule: NoiseSchedule) -> Advice | None:
    """Find the fewest steps of "multistep" that draw Gaussian images of the spectrum right.

    Arguments:
        calibration: Of the model.
        schedule: That it was made with.
    Returns:
        None without a spectrum, or if none of the numbers of steps that are tried is enough.
    """
    if calibration.spectrum is None:
        return None
    spectrum = calibration.spectrum.tabulate(schedule, calibration.x_0_error)
    components, T = Components.of(spectrum.data_variance), len(schedule)

    def levels(chain: torch.Tensor, **options: object) -> float:
        error = final_error(schedule, chain[None], components, **options)
        return _GREY_LEVELS * float(error.clamp(min=0).sqrt())

    std, signal = components.variance.sqrt(), schedule.alpha_bar(T - 1)
    last_std = (signal * components.variance + 1 - signal).sqrt()
    unavoidable = _GREY_LEVELS * float(components.mean((std / last_std - std).square()).sqrt())
    for K in dict.fromkeys(min(K, T) for K in _CLOSED_FORM_STEPS):
        solver = Solver("multistep", num_inference_steps=K)
        chain = timesteps_of(
            calibration, schedule, K, "optimal_samples", "analytic", solver=solver
        )
        found = levels(chain, order=solver.order_for(K))
        if found <= _ENOUGH + unavoidable:
            break
    else:
        return None
    many = min(_DDIM_STEPS, T)
    ddim = levels(spaced_timesteps(T, many, "trailing"), order=1, corrector=False)
    start = (
        f"; exact steps would be {unavoidable:.2g} off, since the noise of the model's schedule "
        "ends before the images are lost in it"
    )
    return Advice(
        f"For this model {K} steps of multistep on optimal_samples steps are as good as {T:,} by "
        "the closed form for Gaussian images of its spectrum, which they draw to within "
        f"{found:.2g} of 256 levels ({many} steps of DDIM: {ddim:.2g}"
        f"{start if unavoidable >= _TOLD else ''}); distances, with features, would say it of its "
        "own images.",
        solver,
        {"timestep_spacing": "optimal_samples"},
    )
