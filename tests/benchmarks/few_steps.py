"""Fréchet distance over calls of the network: our solver on calibrated steps beside stock's.

    python tests/benchmarks/few_steps.py \
        --data fashion-mnist/ --features features/ --output runs/few_steps

Models are trained first, by ``ddpm train`` with these options and else its defaults, and then
calibrated on test images. Every scheduler gets the same network and the same starting noise. A
row that is measured again, with more images, takes the place of the old one; ratios are between
rows of as many images.
"""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
from calibrated_distance import calibration_of
from matplotlib.figure import Figure
from results import DOCS, record
from trained_models import arguments, make_judge, open_model, train_recipe

from ddpm_pipeline import Calibration, DDPMPipeline
from ddpm_pipeline.common import write_json

STEPS = 1500
MODELS = {
    "v": "",
    "ε": "--prediction_type epsilon --ddpm_beta_schedule linear",
}
OURS = "ours: multistep, optimal_samples"
STOCK = {
    "UniPC": ("UniPCMultistepScheduler", {}),
    "DPM-Solver++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM-Solver++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DEIS": ("DEISMultistepScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
}

PICTURE = "images/few_steps.png"

Row = tuple[str | int | float, ...]


def calibrated(folder: Path, data: str, num_forwards: int) -> Calibration:
    """The calibration of a model, which is kept beside it."""
    path = folder / f"few_steps_calibration_{num_forwards}.json"
    if not path.exists():
        found = calibration_of(open_model(folder), data, num_forwards)
        write_json(path, found.to_dict())
    return Calibration.from_dict(json.loads(path.read_text(encoding="utf-8")))


def pipeline(folder: Path, data: str, sampler: str, num_forwards: int) -> DDPMPipeline:
    """The model with a sampler: ours on calibrated steps, or stock's on trailing ones."""
    pipe = open_model(folder)
    if sampler == OURS:
        found = calibrated(folder, data, num_forwards)
        pipe.scheduler = pipe.scheduler.with_calibration(
            found, variance_type="fixed_small", timestep_spacing="optimal_samples"
        )
        pipe.scheduler.set_solver("multistep")
        return pipe
    name, options = STOCK[sampler]
    config = {**pipe.scheduler.config, "timestep_spacing": "trailing", **options}
    pipe.scheduler = getattr(diffusers, name).from_config(config)
    return pipe


def steps_of(sampler: str, calls: int) -> int:
    """How many steps a sampler takes with so many calls: Heun's take two, but the last."""
    return (calls + 1) // 2 if sampler == "Heun" else calls


def report(rows: list[Row], num_forwards: int) -> None:
    draw(rows, DOCS / PICTURE)
    record(
        "few_steps",
        title="Few calls of the network",
        command="python tests/benchmarks/few_steps.py --data fashion-mnist/ "
        "--features features/ --output runs/few_steps",
        text=f"Models of {STEPS:,} updates on Fashion-MNIST by `ddpm train` with its defaults (v: "
        "cosine β, zero terminal SNR) or `--prediction_type epsilon --ddpm_beta_schedule linear` "
        "(ε). Fréchet distance of images of the same noise after so many calls of the network, in "
        "bf16. Stock's schedulers are on `trailing` steps, the best of its spacings; ours is "
        'solver "multistep" with `timestep_spacing="optimal_samples"`, by a calibration with '
        "10,000 forwards on test images. `--calls` and `--samplers` measure some of the rows.",
        columns=("model", "sampler", "calls", "images", "distance", "÷ best of stock"),
        rows=with_ratios(rows),
        picture=PICTURE,
    )


def with_ratios(rows: list[Row]) -> list[Row]:
    """The rows in order, each with its distance over that of the best stock scheduler."""
    best: dict[tuple, float] = {}
    for model, sampler, calls, images, distance in rows:
        if sampler in STOCK:
            key = model, calls, images
            best[key] = min(best.get(key, distance), distance)
    return [
        (*row, row[4] / best[key] if (key := (row[0], row[2], row[3])) in best else "")
        for row in sorted(rows, key=lambda row: (row[0], row[2], row[4]))
    ]


def draw(rows: list[Row], path: Path) -> None:
    """Draw the distance over the calls, a picture for each model and a curve for each sampler."""
    models = list(dict.fromkeys(row[0] for row in rows))
    samplers = dict.fromkeys([OURS, *STOCK, *(row[1] for row in rows)])
    calls = sorted({row[2] for row in rows})
    figure = Figure(figsize=(5 * len(models), 4), layout="constrained")
    for axes, model in zip(
        figure.subplots(1, len(models), sharey=True, squeeze=False)[0], models, strict=True
    ):
        for place, name in enumerate(samplers):
            curve = sorted((row[2], row[4]) for row in rows if row[:2] == (model, name))
            style = {"linewidth": 2.5, "zorder": 3} if name == OURS else {}
            if curve:
                axes.loglog(*zip(*curve, strict=True), "o-", c=f"C{place}", label=name, **style)
        axes.set(title=model, xlabel="calls of the network", ylabel="Fréchet distance")
        axes.set_xticks(calls, calls)
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="both", labelsize="small")
        axes.yaxis.minorticks_on()
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], num_images=1024, num_forwards=10_000)
    parser.add_argument("--calls", type=int, nargs="+", default=[3, 4, 5, 6, 8, 10, 15, 25, 50])
    parser.add_argument("--samplers", nargs="+", default=[OURS, *STOCK])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    options = parser.parse_args()
    judge = make_judge(options.features, options.data, options.num_images)
    kept = options.output / "few_steps.jsonl"
    for model in options.models:
        folder = train_recipe(options.output, options.data, MODELS[model], steps=STEPS)
        for sampler in options.samplers:
            pipe = pipeline(folder, options.data, sampler, options.num_forwards)
            for calls in options.calls:
                distance = judge.distance(pipe, steps_of(sampler, calls))
                row = json.dumps([model, sampler, calls, options.num_images, distance])
                print(row, flush=True)
                with kept.open("a", encoding="utf-8") as file:
                    file.write(row + "\n")
                report(rows_of(kept), options.num_forwards)


def rows_of(kept: Path) -> list[Row]:
    """What was measured so far, by this run and others; of each the row of the most images."""
    rows = map(json.loads, kept.read_text(encoding="utf-8").splitlines())
    by_images = sorted(rows, key=lambda row: row[3])
    return [tuple(row) for row in {tuple(row[:3]): row for row in by_images}.values()]


if __name__ == "__main__":
    main()
