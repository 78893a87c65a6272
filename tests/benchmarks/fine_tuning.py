"""What a pretrained model is worth: other classes with few images, beside training from nothing.

    python tests/benchmarks/fine_tuning.py \
        --data fashion-mnist/ --features features/ --output runs/fine_tuning \
        --updates 400 100 --num_images 300 --bound_images 200

A model is trained on the images of the first five classes of Fashion-MNIST. Then the other five
are learnt from some of their images, drawn anew for each seed: from nothing in N updates, and from
the model in N / 4. Everything else is the same command.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from bound_training import bound
from results import record
from trained_models import Judge, arguments, make_judge, open_model

from ddpm_pipeline import TrainingConfig, train
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.pixels import to_model_range

SIZES = (1_000, 100, 6_000)
SEEDS = (0, 1, 2)
BATCH_SIZE = 16
BASE_STEPS = 1_500
REAL = 5_000
STEPS = 10
START = "pretrained_model_name_or_path"


def images_of(data: str, split: str, *, late: bool) -> np.ndarray:
    """All images of the first five classes, or of the other five, shuffled once."""
    images = open_images(data, resolution=28, split=split, labels=True, progress=False)
    chosen = torch.nonzero((images.labels >= 5) == late)[:, 0]
    order = np.random.default_rng(0).permutation(len(chosen))
    return images.batch(chosen[order]).images[:, 0].numpy()


def array_file(path: Path, images: np.ndarray) -> str:
    """The images as a file that ``ddpm train`` reads, written once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, images)
    return str(path)


def few_images(output: Path, late: np.ndarray, size: int, seed: int) -> str:
    """So many of the late images, others for each seed."""
    chosen = np.random.default_rng(seed).choice(len(late), size, replace=False)
    return array_file(output / "data" / f"late-{size}-seed-{seed}.npy", late[chosen])


def trained(folder: Path, data: str, steps: int, **options: object) -> Path:
    """The model of a run of so many updates, trained if it is not there."""
    if not (folder / "model_index.json").exists():
        config = TrainingConfig(
            train_data_dir=data,
            resolution=28,
            output_dir=str(folder),
            max_train_steps=steps,
            num_threads=1,
            checkpointing_steps=0,
            eval_batch_size=1,
            ddpm_num_inference_steps=2,
            **options,
        )
        train(config)
    return folder


def base_model(output: Path, early: np.ndarray) -> Path:
    """The model of the first five classes."""
    data = array_file(output / "data" / "early.npy", early)
    return trained(output / "base", data, BASE_STEPS)


def runs(
    output: Path, late: np.ndarray, updates: int, base: Path, sizes: list[int]
) -> Iterator[tuple]:
    """Train all models; give the size, the seed, whether it is fine-tuned, and the folder."""
    for size in sizes:
        for seed in SEEDS:
            data = few_images(output, late, size, seed)
            same = {"seed": seed, "train_batch_size": BATCH_SIZE}
            for steps, start in ((updates, {}), (updates // 4, {START: str(base)})):
                name = f"{'tuned' if start else 'scratch'}-{size}-seed-{seed}-steps-{steps}"
                yield size, seed, bool(start), trained(output / name, data, steps, **same, **start)


class Measured:
    """Distances and bounds, kept in a file so that they are measured once.

    Arguments:
        path: The file.
        judge: Compares with the real images of the late classes.
        x_0: Held-out images of the late classes in [-1, 1].
    """

    def __init__(self, path: Path, judge: Judge, x_0: torch.Tensor) -> None:
        self.path, self.judge, self.x_0 = path, judge, x_0
        self.found = json.loads(path.read_text()) if path.exists() else {}

    def __call__(self, folder: Path) -> tuple[float, float]:
        """The Fréchet distance of a model's images, and its bits/dim of held-out images."""
        key = f"{folder.name}, {self.judge.num_images} images, {len(self.x_0)} held out"
        if key not in self.found:
            pipe = open_model(folder)
            bits = bound(pipe, self.x_0).bits_per_dim
            self.found[key] = [self.judge.distance(pipe, K=STEPS, eta=0.0), bits]
            self.path.write_text(json.dumps(self.found))
            print(key, self.found[key], flush=True)
        return tuple(self.found[key])


def spread(values: list[float]) -> str:
    """Mean and standard deviation over the seeds."""
    return f"{mean(values):.3f} ± {stdev(values):.3f}"


def rows_of(found: dict[tuple[int, int, bool], list[tuple[float, float]]]) -> list[list]:
    rows = []
    for updates, size, is_tuned in sorted(found):
        scratch, tuned = found[updates, size, False], found.get((updates, size, True), [])
        if is_tuned or len(tuned) < len(SEEDS):
            continue
        wins = [sum(t[i] <= s[i] for s, t in zip(scratch, tuned, strict=True)) for i in range(2)]
        for name, steps, values in (("nothing", updates, scratch), ("model", updates // 4, tuned)):
            distances, bits = map(list, zip(*values, strict=True))
            told = [f"{won} of {len(values)}" if name == "model" else "" for won in wins]
            rows.append([size, name, steps, spread(distances), told[0], spread(bits), told[1]])
    return rows


def report(rows: list[list], options: object) -> None:
    record(
        "fine_tuning",
        title="From a model of other classes",
        command="python tests/benchmarks/fine_tuning.py --data fashion-mnist/ "
        "--features features/ --output runs/fine_tuning --updates "
        f"{' '.join(map(str, options.updates))} "
        f"--num_images {options.num_images} --bound_images {options.bound_images}",
        text=f"A model of the first five classes of Fashion-MNIST ({BASE_STEPS:,} updates of "
        "`ddpm train` with its defaults), and the other five learnt from so many of their images: "
        f"from nothing in N updates, and with `--{START}` in N / 4, batch {BATCH_SIZE}, all else "
        f"by default. Distance of {options.num_images:,} images "
        f"from {STEPS} steps of DDIM to {REAL:,} training images of the classes, and bits/dim "
        f"of {options.bound_images:,} of their test images; mean and standard deviation over "
        f"{len(SEEDS)} seeds, which draw other images, weights and noise. The columns beside them "
        "count the seeds for which N / 4 updates from the model reached what N updates from "
        "nothing did.",
        columns=(
            "images", "start", "updates", "distance", "reached", "bits/dim", "reached",
        ),
        rows=rows,
    )  # fmt: skip


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], num_images=100, bound_images=64)
    parser.add_argument("--updates", type=int, nargs="+", default=[40], help="N, one or several")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="images")
    options = parser.parse_args()
    early, late = (images_of(options.data, "train", late=late) for late in (False, True))
    test = torch.from_numpy(images_of(options.data, "test", late=True)[: options.bound_images])
    base = base_model(options.output, early)
    real = array_file(options.output / "data" / "real.npy", late[:REAL])
    judge = make_judge(options.features, real, options.num_images)
    measured = Measured(options.output / "found.json", judge, to_model_range(test[:, None]))
    found: dict[tuple[int, int, bool], list[tuple[float, float]]] = {}
    for updates in options.updates:
        for size, _, tuned, folder in runs(options.output, late, updates, base, options.sizes):
            found.setdefault((updates, size, tuned), []).append(measured(folder))
            if rows := rows_of(found):
                report(rows, options)


if __name__ == "__main__":
    main()
