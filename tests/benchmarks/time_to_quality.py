"""Fréchet distance over seconds of training: ``ddpm train`` beside diffusers' example.

    python tests/benchmarks/time_to_quality.py \
        --data fashion-mnist/ --features features/ --output runs/time

Stock is the loop of stock_training.py for two epochs, its averaged weights saved on the way; its
seconds are those of its updates alone. Ours are separate runs of ``ddpm train`` with its defaults
and --max_train_steps; their seconds are those of the whole command, imports included.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from results import DOCS, record
from stock_training import BATCH, stock_run
from trained_models import Judge, arguments, make_judge, open_model, train_model

from ddpm_pipeline.data import open_images

EPOCHS, LEARNING_RATE = 2, 3e-4
SAVES = (235, 469, 938)
Curve = list[tuple[int, float, float]]


def png_folder(data: str, folder: Path) -> Path:
    """The training images as PNG files, which is how the example reads them."""
    if not folder.exists():
        images = open_images(data, resolution=28, progress=False)
        partial = folder.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images.batch(range(len(images))).images[:, 0].numpy()):
            Image.fromarray(image).save(partial / f"{i:05d}.png")
        partial.rename(folder)
    return folder


def train_stock(data: str, output: Path) -> dict[int, float]:
    """Two epochs of the example; seconds until each of the models it saved, by updates."""
    clock = output / "stock.json"
    if not clock.exists():
        images = png_folder(data, output / "images")
        steps = EPOCHS * -(-len(list(images.iterdir())) // BATCH)
        run = stock_run(images, "no", steps=steps, learning_rate=LEARNING_RATE)
        seconds, found = 0.0, {}
        for step in range(1, steps + 1):
            start = time.perf_counter()
            run.step()
            seconds += time.perf_counter() - start
            if step in SAVES or step == steps:
                run.save(output / f"stock-{step}")
                found[step] = seconds
                print(f"stock, {step} updates: {seconds:.0f} s", flush=True)
        clock.write_text(json.dumps(found))
    return {int(step): seconds for step, seconds in json.loads(clock.read_text()).items()}


def stock_curve(judge: Judge, data: str, output: Path) -> Curve:
    return [
        (step, seconds, judge.distance(open_model(output / f"stock-{step}", stock=True)))
        for step, seconds in train_stock(data, output).items()
    ]


def our_curve(judge: Judge, data: str, output: Path, lengths: list[int]) -> Curve:
    curve = []
    for steps in lengths:
        folder = output / f"ours-{steps}"
        seconds = train_model(folder, data, "--max_train_steps", str(steps))
        curve.append((steps, seconds, judge.distance(open_model(folder), eta=0.0)))
        print(f"ours, {steps} updates: {curve[-1]}", flush=True)
    return curve


def draw(curves: dict[str, Curve], path: Path) -> None:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        _, seconds, distances = np.array(curve).T
        axes.loglog(seconds, distances, "o-", label=name)
    axes.set(xlabel="seconds of training", ylabel="Fréchet distance at K = 25")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], num_images=2000)
    parser.add_argument("--lengths", type=int, nargs="+", default=[100, 250, 500, 938])
    options = parser.parse_args()
    judge = make_judge(options.features, options.data, options.num_images)
    curves = {
        "diffusers' example": stock_curve(judge, options.data, options.output),
        "ddpm train": our_curve(judge, options.data, options.output, options.lengths),
    }
    _, total, reached = curves["diffusers' example"][-1]
    draw(curves, DOCS / "images" / "time_to_quality.png")
    record(
        "time_to_quality",
        title="Distance over time of training",
        command="python tests/benchmarks/time_to_quality.py --data fashion-mnist/ "
        "--features features/ --output runs/time",
        text=f"The same UNet, data and machine; {options.num_images:,} images at K = 25 against "
        "the 60,000 of the training set. Stock: ε, linear β, learning rate 3e-4 (better here than "
        "its default of 1e-4), batch 64, EMA power ¾, float32, its own sampler; a row is one run "
        "on the way to two epochs. Ours: a row is a run of `ddpm train` with default options and "
        "`--max_train_steps`, its time that of the whole command, and DDIM as in `ddpm sample`.",
        columns=("run", "updates", "seconds", "share of stock's time", "distance", "÷ stock's"),
        rows=[
            [name, step, seconds, seconds / total, distance, distance / reached]
            for name, curve in curves.items()
            for step, seconds, distance in curve
        ],
        picture="images/time_to_quality.png",
    )


if __name__ == "__main__":
    main()
