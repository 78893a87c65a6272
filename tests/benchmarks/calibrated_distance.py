"""What calibration gains in Fréchet distance at few steps, beside stock's default sampler.

    python tests/benchmarks/calibrated_distance.py \
        --data fashion-mnist/ --features features/ --output runs/calibrated

Models are trained first, by ``ddpm train`` with these options and else its defaults, and then
calibrated on test images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import diffusers
import torch
from diffusers import DiffusionPipeline
from results import record
from trained_models import Judge, arguments, make_judge, open_model, train_recipe

from ddpm_pipeline import Calibration, DDPMPipeline, calibrate
from ddpm_pipeline.common.randomness import seeded_generator
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.pixels import to_model_range
from ddpm_pipeline.evaluation.metrics import frechet_distance
from ddpm_pipeline.evaluation.statistics import feature_statistics

MODELS = {
    "ε, linear β": (5000, "--prediction_type epsilon --ddpm_beta_schedule linear"),
    "v, cosine β, zero terminal SNR": (14_000, ""),
}
CALIBRATED_SPACINGS = ("optimal_samples", "optimal")
SPACINGS = ("trailing", "quadratic", "linspace", *CALIBRATED_SPACINGS)
VARIANCES = {"analytic": ("analytic", None), "analytic, DDIM η = 0": ("analytic", 0.0)}
DDIM = {"DDIM η = 0": ("fixed_small", 0.0)}
PLAIN = {"fixed_small": ("fixed_small", None), "fixed_large": ("fixed_large", None), **DDIM}

STOCK = ("stock DDPMScheduler's default: fixed_small", "leading")
OTHER_NOISE = 1000  # the first seed of the images that check the best of many samplers

Row = tuple[str | float | int, ...]
Samplers = dict[tuple[str, str], tuple[DiffusionPipeline, dict]]


def calibration_of(pipe: DDPMPipeline, data: str, num_forwards: int = 10_000) -> Calibration:
    """On test images, by default with 10 forwards per timestep."""
    images = open_images(data, resolution=28, split="test", progress=False)
    batches = [to_model_range(images.batch(range(i, i + 250)).images) for i in range(0, 5000, 250)]
    generator = seeded_generator(0)
    return calibrate(
        pipe.unet,
        pipe.scheduler,
        batches,
        num_forwards=num_forwards,
        generator=generator,
        progress=True,
    )


def stock_default(folder: Path) -> DiffusionPipeline:
    """Stock's pipeline and scheduler with its own defaults for what sampling may choose."""
    pipe = open_model(folder, stock=True)
    config = {k: v for k, v in pipe.scheduler.config.items() if not k.startswith("_")}
    for name in ("timestep_spacing", "variance_type", "clip_sample"):
        config.pop(name, None)
    pipe.scheduler = diffusers.DDPMScheduler(**config)
    return pipe


def samplers(folder: Path, data: str) -> Samplers:
    """Pipelines and their options by (variance, spacing), stock's default first."""
    pipe = open_model(folder)
    found = calibration_of(pipe, data)
    rows = [("trailing", *row) for row in PLAIN.items()]
    rows += [(spacing, *row) for spacing in SPACINGS for row in VARIANCES.items()]
    rows += [(spacing, *row) for spacing in CALIBRATED_SPACINGS for row in DDIM.items()]
    pipes = {STOCK: (stock_default(folder), {})}
    for spacing, name, (variance, eta) in rows:
        own = pipe.scheduler.with_calibration(
            found, variance_type=variance, timestep_spacing=spacing
        )
        pipes[name, spacing] = DDPMPipeline(pipe.unet, own), {"eta": eta}
    return pipes


def is_calibrated(sampler: tuple[str, str]) -> bool:
    """Whether its variance or its timesteps come from a calibration."""
    variance, spacing = sampler
    return variance in VARIANCES or spacing in CALIBRATED_SPACINGS


def measure(judge: Judge, pipes: Samplers, K: int, num_more: int) -> Iterator[Row]:
    """(variance, spacing, K, images, distance, ratio to stock's default), stock's default first.

    The last two are stock's and the best calibrated again, with num_more images of other noise,
    which no choice was made by.
    """
    more = replace(judge, num_images=num_more, first_seed=OTHER_NOISE)
    distances = {}
    for key, (pipe, options) in pipes.items():
        distances[key] = judge.distance(pipe, K, **options)
        yield *key, K, judge.num_images, distances[key], distances[key] / distances[STOCK]
    best = min(filter(is_calibrated, distances), key=distances.__getitem__)
    for key in (STOCK, best):
        pipe, options = pipes[key]
        distances[key] = more.distance(pipe, K, **options)
        yield *key, K, num_more, distances[key], distances[key] / distances[STOCK]


def distance_of_test_images(judge: Judge, data: str, count: int) -> float:
    """What a perfect model would have with so many images."""
    images = open_images(data, resolution=28, split="test", progress=False)
    drawn = feature_statistics(
        lambda i: images.batch(i).images, count, judge.extractor, kept=torch.arange(1)
    )
    return frechet_distance(drawn.moments, judge.real)


def report(rows: list[Row], num_images: int, real: dict[int, float]) -> None:
    models = "; ".join(
        f"{name}: `{f'--max_train_steps {steps} {words}'.strip()}`"
        for name, (steps, words) in MODELS.items()
    )
    record(
        "calibrated_distance",
        title="Few steps: variances and spacings",
        command="python tests/benchmarks/calibrated_distance.py --data fashion-mnist/ "
        "--features features/ --output runs/calibrated",
        text="Models trained here by `ddpm train` on Fashion-MNIST, with its defaults but for "
        f"these options: {models}. Each was calibrated with 10,000 forwards on test images. "
        f"{num_images:,} images of each sampler with the same noise; then stock's and the best "
        "calibrated again, with more images and other noise. Of test images "
        f"{' and '.join(f'{n:,} have {distance:.3g}' for n, distance in real.items())}.",
        columns=("model", "variance", "spacing", "K", "images", "distance", "÷ stock's default"),
        rows=rows,
    )


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], num_images=1000, num_more=5000)
    parser.add_argument("--K", type=int, nargs="+", default=[25])
    options = parser.parse_args()
    judge = make_judge(options.features, options.data, options.num_images)
    counts = (options.num_images, options.num_more)
    real = {n: distance_of_test_images(judge, options.data, n) for n in counts}
    rows: list[Row] = []
    for model, (steps, words) in MODELS.items():
        folder = train_recipe(options.output, options.data, words, steps=steps)
        pipes = samplers(folder, options.data)
        for K in options.K:
            for row in measure(judge, pipes, K, options.num_more):
                rows.append((model, *row))
                print(rows[-1], flush=True)
                report(rows, options.num_images, real)


if __name__ == "__main__":
    main()
