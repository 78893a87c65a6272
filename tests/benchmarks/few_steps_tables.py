"""The tables and the picture of few_steps.py, made of all rows that were kept."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from results import record

__all__ = ["CALLS", "OURS", "STOCK", "Row", "columns_of", "how_spaced", "show", "table"]

CALLS = (3, 4, 5, 6, 8, 10, 15, 25, 50)
OURS = {
    "multistep": "optimal_samples",
    "multistep_sde": "optimal_samples",
    "spectral_steps": "optimal_samples",
    "spectral": "optimal",
}
"""Samplers of ``ddpm calibrate`` and the spacing of each."""
STOCK = (
    "UniPC",
    "DPM-Solver++ 2M",
    "DPM-Solver++ 2M SDE",
    "SA-Solver",
    "DEIS",
    "Heun",
    "DDIM",
    "DDPM",
)
PICTURE = "images/few_steps.png"
NOISE = (
    "Other shares of noise, 5,000 images of the models of v and ε: η = 0.3 with 8 calls 7.68 and "
    "6.46, η = 0.7 with 25 calls 8.15 and 7.50. Of 512 images of v with 5, 8 and 10 calls, and "
    "left: noise for t from 200 to 800 alone, as stock's SA-Solver has it, 13.42, 12.98 and "
    "12.23; with 8 calls η from 0.8 down to 0 10.00, from 1 9.84, η = 0.5 in the first half alone "
    "9.95. Others of stock's on `trailing` steps, 256 images of v with 5 and 8 calls, where UniPC "
    "has 26.7 and 14.9: UniPC of order 3 26.5 and 14.9, DPM-Solver of single steps 39.2 and 20.2, "
    "PNDM 38.9 and 25.6, LMS 36.2 and 18.9, ancestral Euler 61.3 and 36.8, KDPM2 121.9 and 83.9; "
    "of ε with 5, where it has 19.7: 17.9, 24.0, 27.6, 21.4, 35.9 and 27.5."
)
TRIED = (
    "Tried on a model of v after 500 updates, 8 calls, 256 images, where the solver had 18.85, "
    "and left: predictions of x_0 times 1.02 18.10, times 1.03 18.27; predicted noise divided by "
    "1.01 19.56, by 1.03 24.83; predictions extrapolated by 0.3 of their last change 19.42; no "
    "clipping 18.68; every band of frequencies rescaled to its known variance 18.84, to its mean "
    "too 17.96; 2M without corrector 19.69, with noise of η = 0.3 20.12, of η = 1 20.73. Of a "
    'model after 1,000 updates, 5 calls: "multistep" 16.52, solver "spectral" of order 2 24.19, '
    "of order 1 29.51. Of the model of v here, 8 calls, 512 images: 8.64, and with predictions of "
    "x_0 led away from those of Wiener's filter, by 0.05 of the difference 8.64, 0.1 8.75, 0.2 "
    "9.30; order 3 10.45, without corrector 9.05; six other chains 8.41 to 8.91, and 9.89 for "
    "its own without the last step."
)


@dataclass(frozen=True)
class Row:
    """One distance.

    Arguments:
        model, sampler, spacing: Of the images.
        calls: Of the network, at most; Heun's steps take two, but the last.
        images: How many were drawn.
        distance: Infinite where the scheduler failed, for the reason in ``failure``.
        seconds: For all of them.
        key: Tells all that the distance depends on.
    """

    model: str
    sampler: str
    spacing: str
    calls: int
    images: int
    distance: float
    seconds: float
    key: str
    failure: str | None = None


def chosen(rows: list[Row]) -> list[Row]:
    """The rows to show: of each model, sampler and calls that of the most images.

    And those of fewer, if another sampler has no more there: it is compared with these. All on the
    best spacing.
    """
    found: dict[tuple, Row] = {}
    for row in sorted(rows, key=lambda row: -row.distance):
        found[row.model, row.sampler, row.calls, row.images] = row
    most: dict[tuple, int] = {}
    for model, sampler, calls, images in found:
        most[model, sampler, calls] = max(images, most.get((model, sampler, calls), 0))
    shown = {(model, calls, images) for (model, _, calls), images in most.items()}
    kept = [row for row in found.values() if (row.model, row.calls, row.images) in shown]
    return sorted(kept, key=lambda row: row.images)


def columns_of(rows: list[Row]) -> list[str]:
    """Names of the table's columns."""
    return ["model", "sampler", "images", *(str(K) for K in sorted({row.calls for row in rows}))]


def table(rows: list[Row]) -> list[list[str | float | int]]:
    """A row for each model and sampler with a distance for each number of calls.

    Below those of a model stand the ratios of "multistep" and "multistep_sde" to the best of
    stock's, with as many images.
    """
    rows = chosen(rows)
    calls = sorted({row.calls for row in rows})
    lines: list[list[str | float | int]] = []
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        for sampler in (*OURS, *STOCK):
            for count in sorted({row.images for row in own if row.sampler == sampler}):
                cells = {r.calls: r for r in own if (r.sampler, r.images) == (sampler, count)}
                lines.append([model, sampler, count, *(cell(cells.get(K)) for K in calls)])
        for name in ("multistep", "multistep_sde"):
            ratios = [ratio(own, name, K) for K in calls]
            if any(ratios):
                lines.append([model, f"{name} ÷ best of stock", "", *ratios])
    return lines


def cell(row: Row | None) -> str | float:
    """A distance, "fails", or nothing where none was measured."""
    if row is None:
        return ""
    return row.distance if math.isfinite(row.distance) else "fails"


def ratio(rows: list[Row], sampler: str, calls: int) -> str | float:
    """One of ours over the best of stock's with as many images; nothing if one is missing."""
    at = [row for row in rows if row.calls == calls]
    ours = max(
        (row for row in at if row.sampler == sampler), key=lambda row: row.images, default=None
    )
    others = [
        row.distance
        for row in at
        if row.sampler in STOCK and ours and row.images == ours.images and row.failure is None
    ]
    return ours.distance / min(others) if others else ""


def spacings(rows: list[Row]) -> str:
    """Say where stock's best spacing was not trailing."""
    other = [
        f"{row.sampler} {row.spacing} ({row.model}, {row.calls})"
        for row in chosen(rows)
        if row.sampler in STOCK and row.spacing != "trailing" and math.isfinite(row.distance)
    ]
    return f"Best on another spacing than trailing: {', '.join(other)}." if other else ""


def how_spaced(rows: list[Row]) -> str:
    """Say on which steps stock's rows are, and by how many images that was found."""
    stock = [row for row in rows if row.sampler in STOCK and row.failure is None]
    tried = list(dict.fromkeys(row.spacing for row in stock))
    if len(tried) < 2:
        return f"Stock's schedulers are on `{''.join(tried)}` steps."
    shown = {id(row) for row in chosen(rows)}
    counts = sorted({row.images for row in stock if id(row) not in shown})
    return (
        "Each of stock's schedulers is on the best of its spacings "
        f"{', '.join(f'`{spacing}`' for spacing in tried)} for these calls, by "
        f"{' or '.join(f'{count:,}' for count in counts)} images."
    )


def show(rows: list[Row], output: Path, docs: Path, about: str = "") -> None:
    """Write few_steps.md and .png, and the page's record unless BENCHMARKS_RECORD=0.

    Arguments:
        rows: All that were kept.
        output: Where to write the files.
        docs: The folder of the pages.
        about: What the models are, for the page.
    """
    columns, lines = columns_of(rows), table(rows)
    marks = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    for line in lines:
        cells = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in line)
        marks.append("| " + " | ".join(cells) + " |")
    text = "\n".join([*marks, "", spacings(rows)])
    (output / "few_steps.md").write_text(text.rstrip() + "\n", encoding="utf-8")
    draw(rows, output / "few_steps.png")
    if os.environ.get("BENCHMARKS_RECORD", "1") == "0":
        return
    draw(rows, docs / PICTURE)
    record(
        "few_steps",
        title="Few calls of the network",
        command="python tests/benchmarks/few_steps.py --data fashion-mnist/ "
        "--features features/ --output runs/few_steps",
        text="Fréchet distance of images of the same noise after so many calls of the network. "
        f"{about} {how_spaced(rows)} "
        '"multistep" is our solver with `timestep_spacing="optimal_samples"`, by a calibration '
        'on other images than those of the training, and "multistep_sde" the same with eta = 0.5. '
        "Distances of a model of colour pictures are "
        "in features of its own.",
        columns=columns,
        rows=lines,
        picture=PICTURE,
        notes=[note for note in (spacings(rows), NOISE, TRIED) if note],
    )


def draw(rows: list[Row], path: Path) -> None:
    """Draw the distance over the calls, a picture for each model and a curve for each sampler.

    Few images raise every distance: a picture has those of one number of images, of which there
    are the most.
    """
    rows = [row for row in chosen(rows) if math.isfinite(row.distance)]
    models = list(dict.fromkeys(row.model for row in rows))
    calls = sorted({row.calls for row in rows})
    figure = Figure(figsize=(5 * max(1, len(models)), 4), layout="constrained")
    for place, model in enumerate(models):
        axes = figure.add_subplot(1, len(models), place + 1)
        of_model = [row for row in rows if row.model == model]
        images = Counter(row.images for row in of_model).most_common(1)[0][0]
        for colour, name in enumerate((*OURS, *STOCK)):
            curve = sorted(
                (row.calls, row.distance)
                for row in of_model
                if (row.sampler, row.images) == (name, images)
            )
            style = {"linewidth": 2.5, "zorder": 3} if name in OURS else {}
            if curve:
                axes.loglog(
                    *zip(*curve, strict=True),
                    "o-" if colour < 10 else "s--",  # there are ten colours
                    c=f"C{colour}",
                    label=name,
                    **style,
                )
        axes.set(
            title=f"{model}, {images:,} images",
            xlabel="calls of the network",
            ylabel="Fréchet distance",
        )
        axes.set_xticks(calls, calls)
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="both", labelsize="small")
        axes.yaxis.minorticks_on()
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
