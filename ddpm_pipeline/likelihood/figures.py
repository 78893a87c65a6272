"""The pictures and the table of a bound: its terms over the chain, and the score of each image."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ddpm_pipeline.common import printable, write_figure, write_text
from ddpm_pipeline.likelihood.report import BoundReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "figure_class",
    "measured_rate_distortion",
    "save_figure",
    "save_scores",
    "term_profile",
]


# Draws that a point of an estimated profile averages over, at least.
_DRAWS_PER_POINT = 50


def term_profile(report: BoundReport) -> tuple[np.ndarray, np.ndarray]:
    """Give the mean transition at a timestep, in bits per dimension, down the chain.

    Neighbouring timesteps of an estimate are averaged until enough draws stand behind a point.

    Returns:
        Timesteps (P,), and bits per dimension (P,).
    """
    t, bits = np.array(report.chain[:-1], float), report.transitions.numpy()
    points = [(t[group].mean(), bits[group].mean()) for group in _groups(report)]
    return tuple(np.array(points).reshape(-1, 2).T)


def measured_rate_distortion(report: BoundReport) -> tuple[np.ndarray, np.ndarray]:
    """Give the rate in bits per dimension and the distortion in 0 … 255, down the chain.

    Averaged as in ``term_profile``; the last point is that of the decoder.
    """
    rate, squares = report.rate.numpy(), report.distortion.square().nan_to_num().numpy()
    counts = report.step_counts.numpy()
    points = [
        (rate[group].mean(), math.sqrt((counts[group] @ squares[group]) / counts[group].sum()))
        for group in [*_groups(report), slice(-1, None)]
    ]
    return tuple(np.array(points).T)


def _groups(report: BoundReport) -> list[slice]:
    """Give runs of transitions with enough draws each."""
    count = len(report.transitions)
    if report.settings.is_exact:
        return [slice(k, k + 1) for k in range(count)]
    draws = np.cumsum(report.step_counts[:-1].numpy())
    last = max(draws[-1] // _DRAWS_PER_POINT - 1, 0)
    number = np.clip((draws - 1) // _DRAWS_PER_POINT, 0, last)
    edges = [0, *(np.flatnonzero(np.diff(number)) + 1), count]
    return [slice(a, b) for a, b in pairwise(edges)]


def save_figure(report: BoundReport, path: str | os.PathLike) -> None:
    """Write a picture of the terms over t, and of rate against distortion.

    Raises:
        ImportError: If matplotlib is missing; says what to install.
    """
    figure = figure_class()(figsize=(10, 4), layout="constrained")
    terms, curve = figure.subplots(1, 2)
    _draw_terms(terms, report)
    _draw_rate_distortion(curve, report)
    title = f"{report.bits_per_dim:.4f} ± {report.standard_error:.4f} bits/dim"
    figure.suptitle(f"{title}, {report.num_images} images, {len(report.chain)} steps")
    path = Path(path)
    write_figure(path if path.suffix else path.with_suffix(".png"), figure, dpi=120)


def figure_class() -> type[Figure]:
    """Import what draws figures, which is asked for before the work that ends in one.

    Raises:
        ImportError: If matplotlib is missing; says what to install.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("the figure needs `pip install ddpm_pipeline[eval]`") from None
    return Figure


def _draw_terms(axes: Axes, report: BoundReport) -> None:
    t, bits = term_profile(report)
    axes.plot(t[bits > 0], bits[bits > 0], lw=1.2, label=r"transitions $L_{t-1}$")
    if report.decoder > 0:
        axes.plot(report.chain[-1], report.decoder, "o", label=r"decoder $L_0$")
    if report.prior > 0:
        axes.plot(report.chain[0], report.prior, "s", label=r"prior $L_T$")
    axes.set(xlabel="t", ylabel="bits/dim", yscale="log", title="Terms of the bound")
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_rate_distortion(axes: Axes, report: BoundReport) -> None:
    axes.plot(*measured_rate_distortion(report), lw=1.2)
    axes.set(
        xlabel="rate: bits/dim in the terms above t",
        ylabel=r"distortion: RMSE of $\hat x_0$ in 0 … 255",
        ylim=(0, None),
        title="Rate and distortion",
    )
    axes.grid(alpha=0.3)


def save_scores(report: BoundReport, path: str | os.PathLike, names: Sequence[str]) -> None:
    """Write one line for each image: its number, its name, and its bound with the parts.

    What is not UTF-8 in a name is escaped, as \\xe9 is, so that the file can be read as UTF-8, and
    so are ends of lines and controls. A name that a spreadsheet would compute, as one that begins
    with "=", has an apostrophe before it.

    Arguments:
        report: Of the images.
        path: Of the CSV file.
        names: Of the images, N of them.
    """
    columns = {
        "bits_per_dim": report.per_example,
        "prior": report.prior_per_example,
        "transitions": report.transitions_per_example,
        "decoder": report.decoder_per_example,
    }
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["image", "name", *columns])
    for i, (name, row) in enumerate(zip(names, values, strict=True)):
        writer.writerow([i, _cell(name), *(f"{value:.6f}" for value in row)])
    write_text(Path(path), table.getvalue())


def _cell(name: str) -> str:
    """Write a name so that spreadsheets take it for text: what they compute begins so."""
    shown = printable(name)
    return f"'{shown}" if shown.startswith(tuple("=+-@＝＋－＠")) else shown
