"""Pictures of a calibration: its moments and variances, its steps, and what they cost.

matplotlib draws them, without any window: `pip install ddpm_pipeline[eval]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ddpm_pipeline.calibration.rates import RateDistortion
from ddpm_pipeline.diffusion import NoiseSchedule, analytic_variance, posterior_variance
from ddpm_pipeline.schedulers import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "cost_figure",
    "moment_figure",
    "rate_distortion_figure",
    "step_figure",
    "variance_figure",
]

_LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
_SHOWN_MULTIPLE = 3


def moment_figure(calibration: Calibration) -> Figure:
    """Draw m_t, the error of the predicted x_0, and v_t, which the variances are made of."""
    figure, (moments, errors) = _axes(2)
    t = np.arange(len(calibration))
    _band(moments, t, calibration.m, calibration.m_standard_error)
    moments.set(xlabel="t", title=r"$m_t = E\|\hat\epsilon\|^2/D$", ylim=(0, None))
    _band(errors, t, calibration.x_0_error, calibration.x_0_error_standard_error)
    errors.plot(t, calibration.x_0_variance, "--", lw=1, label="$v_t$")
    errors.set(xlabel="t", title=r"$E\|x_0 - \hat x_0\|^2/D$", yscale="log")
    errors.legend()
    return figure


def variance_figure(calibration: Calibration, schedule: NoiseSchedule) -> Figure:
    """Draw the analytic variance between fixed_small's and fixed_large's, as shares of beta."""
    figure, panels = _axes(2)
    T = len(schedule)
    for axes, stride in zip(panels, (1, max(T // 20, 1)), strict=True):
        t = torch.arange(stride, T)
        s = t - stride
        beta = schedule.beta(t, s)
        small = posterior_variance(schedule, t, s)
        analytic = analytic_variance(schedule, t, s, calibration.x_0_variance[t])
        axes.plot(t, torch.ones(len(t)), label=r"$\beta$ (fixed_large)")
        axes.plot(t, analytic / beta, label=r"$\sigma^2$ (analytic)")
        axes.plot(t, small / beta, label=r"$\tilde\beta$ (fixed_small)")
        axes.set(
            xlabel="t", title=rf"variance / $\beta_{{t|s}}$, s = t - {stride}", ylim=(0, 1.05)
        )
    panels[0].set_xscale("log")
    panels[0].legend()
    return figure


def step_figure(chains: Mapping[str, Sequence[int] | Tensor], T: int) -> Figure:
    """Draw the timesteps of some chains, one row each.

    Arguments:
        chains: Timesteps by name.
        T: Length of the full chain.
    """
    figure, (axes,) = _axes(1)
    for row, chain in enumerate(chains.values()):
        axes.plot(torch.as_tensor(chain), [row] * len(chain), "|", ms=14)
    axes.set(xlabel="t", xlim=(-0.01 * T, 1.01 * T), ylim=(len(chains) - 0.5, -0.5))
    axes.set_yticks(range(len(chains)), labels=list(chains))
    return figure


def cost_figure(costs: Mapping[str, Mapping[int, float]], unit: str) -> Figure:
    """Draw a curve over K for each way to sample, up to some multiple of the lowest cost.

    Arguments:
        costs: Cost by "sampler spacing", which choose colour and line, and K.
        unit: What the cost is.
    """
    figure, (axes,) = _axes(1)
    columns = zip(*map(str.split, costs), strict=True)
    samplers, spacings = (list(dict.fromkeys(column)) for column in columns)
    for name, by_steps in costs.items():
        sampler, spacing = name.split()
        colour, line = samplers.index(sampler), spacings.index(spacing)
        axes.plot(
            list(by_steps),
            list(by_steps.values()),
            color=f"C{colour % 10}",
            ls=_LINES[line % len(_LINES)],
            marker=".",
            lw=1.2,
            label=name,
        )
    steps = sorted({K for row in costs.values() for K in row})
    values = [cost for row in costs.values() for cost in row.values()]
    top = min(max(values), _SHOWN_MULTIPLE * min(values))
    cut = "" if top == max(values) else f", cut off at {_SHOWN_MULTIPLE} times the lowest"
    axes.set(xlabel="K", ylabel=unit + cut, xscale="log", ylim=(0.9 * min(values), 1.05 * top))
    axes.set_xticks(steps, labels=map(str, steps))
    axes.minorticks_off()
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def rate_distortion_figure(curves: Mapping[str, RateDistortion]) -> Figure:
    """Draw distortion over rate, and the rate over the timestep that the code has reached."""
    figure, (plane, time) = _axes(2)
    for name, curve in curves.items():
        plane.plot(curve.rate, curve.distortion, lw=1, label=name)
        time.plot(curve.timesteps, curve.rate, lw=1, label=name)
    plane.set(xlabel="rate (bits/dim)", ylabel="distortion (RMSE, 0 ... 255)")
    time.set(xlabel="t", ylabel="rate (bits/dim)")
    time.invert_xaxis()
    plane.legend()
    return figure


def _axes(count: int) -> tuple[Figure, list[Axes]]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("the figures need `pip install ddpm_pipeline[eval]`") from None
    figure = Figure(figsize=(5.2 * count if count > 1 else 7, 4), dpi=120, layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for panel in axes:
        panel.grid(alpha=0.3)
    return figure, axes


def _band(axes: Axes, t: np.ndarray, values: Tensor, errors: Tensor) -> None:
    axes.plot(t, values, lw=1.2)
    low, high = (values - 2 * errors).clamp(min=1e-12), values + 2 * errors
    axes.fill_between(t, low, high, alpha=0.3)
