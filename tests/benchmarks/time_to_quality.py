"""Fréchet distance over seconds of training: ``ddpm train`` beside diffusers' example.

    python tests/benchmarks/time_to_quality.py \
        --data fashion-mnist/ --features features/ --output runs/time

Stock is the loop of stock_training.py for two epochs, its averaged weights saved on the way, with
its default learning rate and with one that is better here. Ours are separate runs of
``ddpm train`` with its defaults and --max_train_steps. Seconds are updates times the median time
of an update that test_training_speed.py found for both, in turns, so that nothing else that ran on
the machine favours one; run that first. Ours have the seconds of an empty run, imports and the
drawing of a sample grid included, on top.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from results import DOCS, FOLDER, record
from stock_training import BATCH, stock_run
from trained_models import Judge, arguments, make_judge, open_model, train_model

from ddpm_pipeline.data.images import open_images

EPOCHS = 2
SAVES = (235, 469, 938)
STOCK = {"diffusers' example, 1e-4": 1e-4, "diffusers' example, 3e-4": 3e-4}
OURS = "ddpm train"
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


def stock_folder(output: Path, learning_rate: float, step: int) -> Path:
    return output / f"stock-{learning_rate:g}-{step}"


def train_stock(data: str, output: Path, learning_rate: float) -> list[int]:
    """Two epochs of the example; the updates after which it saved a model."""
    images = png_folder(data, output / "images")
    steps = EPOCHS * -(-len(list(images.iterdir())) // BATCH)
    saves = sorted({*SAVES, steps})
    if not stock_folder(output, learning_rate, steps).exists():
        run = stock_run(images, "no", steps=steps, learning_rate=learning_rate)
        for step in range(1, steps + 1):
            run.step()
            if step in saves:
                run.save(stock_folder(output, learning_rate, step))
    return saves


def seconds_per_update() -> dict[str, float]:
    """Of stock in float32 and of ours by default, from one run of test_training_speed.py."""
    found = json.loads((FOLDER / "training_speed.json").read_text(encoding="utf-8"))
    rows = {(row[0], row[1]): row[2] / 1000 for row in found["rows"]}
    return {"stock": rows["stock", "no"], "ours": rows["ours", "bf16"]}


def start_up(data: str, folder: Path) -> float:
    """Seconds of ``ddpm train`` with one update, when the data are in the cache."""
    for name in ("first", "second"):
        seconds = train_model(folder / name, data, "--max_train_steps", "1")
    return seconds


def measure(judge: Judge, data: str, output: Path, lengths: list[int]) -> dict[str, Curve]:
    """Curves of (updates, seconds, distance), the distances kept in curves.json."""
    kept = output / "curves.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}

    def distance(folder: Path, **options: object) -> float:
        key = f"{folder.name}, {judge.num_images} images"
        if key not in found:
            pipe = open_model(folder, stock="stock" in folder.name)
            found[key] = judge.distance(pipe, **options)
            kept.write_text(json.dumps(found))
        return found[key]

    seconds, curves = seconds_per_update(), {}
    for name, rate in STOCK.items():
        curves[name] = [
            (steps, steps * seconds["stock"], distance(stock_folder(output, rate, steps)))
            for steps in train_stock(data, output, rate)
        ]
    start, curves[OURS] = start_up(data, output / "start"), []
    for steps in lengths:
        folder = output / f"ours-{steps}"
        train_model(folder, data, "--max_train_steps", str(steps))
        curves[OURS].append((steps, start + steps * seconds["ours"], distance(folder, eta=0.0)))
    return curves


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
    parser = arguments(__doc__.splitlines()[0], num_images=1000)
    parser.add_argument("--lengths", type=int, nargs="+", default=[190, 500, 1590])
    options = parser.parse_args()
    judge = make_judge(options.features, options.data, options.num_images)
    curves = measure(judge, options.data, options.output, options.lengths)
    draw(curves, DOCS / "images" / "time_to_quality.png")
    ends = [curves[name][-1] for name in STOCK]
    rows: list[list[str | float | int]] = []
    for name, curve in curves.items():
        for step, seconds, distance in curve:
            ratios = [distance / reached for _, _, reached in ends]
            rows.append([name, step, seconds, seconds / ends[0][1], distance, *ratios])
    record(
        "time_to_quality",
        title="Distance over time of training",
        command="python tests/benchmarks/time_to_quality.py --data fashion-mnist/ "
        "--features features/ --output runs/time",
        text=f"The same UNet, data and machine; {options.num_images:,} images at K = 25 against "
        "the 60,000 of the training set. Stock: ε, linear β, batch 64, EMA power ¾, float32, its "
        "own sampler, learning rate 1e-4 (its default) and 3e-4 (better here); the rows of a rate "
        "are one run on the way to two epochs. Ours: a row is a run of `ddpm train` with default "
        "options and `--max_train_steps`, sampled by DDIM as in its sample grids. Seconds are "
        "updates times the median time of an update, from the table of training speed (in turns), "
        "ours with the start of the command on top. Networks run in bf16 for sampling, all alike.",
        columns=(
            "run",
            "updates",
            "seconds",
            "share of stock's time",
            "distance",
            "÷ stock's at 1e-4",
            "÷ stock's at 3e-4",
        ),
        rows=rows,
        picture="images/time_to_quality.png",
    )


if __name__ == "__main__":
    main()
