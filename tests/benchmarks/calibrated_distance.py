"""What calibration gains in Fréchet distance at few steps, beside stock's default sampler.

    python tests/benchmarks/calibrated_distance.py \
        --data fashion-mnist/ --features features/ --output runs/calibrated

Models are trained first, by ``ddpm train`` with these options and else its defaults, and then
calibrated on test images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import diffusers
from diffusers import DiffusionPipeline
from results import record
from trained_models import Judge, arguments, make_judge, open_model, train_recipe

from ddpm_pipeline import Calibration, DDPMPipeline, calibrate
from ddpm_pipeline.data import open_images, seeded_generator, to_model_range
from ddpm_pipeline.process import VarianceType

MODELS = {
    "ε, linear β": (5000, "--prediction_type epsilon --ddpm_beta_schedule linear"),
    "v, cosine β, zero terminal SNR": (1850, ""),
}
SPACINGS = ("trailing", "optimal_samples", "quadratic", "linspace", "optimal")
VARIANCES = {"analytic": ("analytic", None), "analytic, DDIM η = 0": ("analytic", 0.0)}
PLAIN = {
    "fixed_small": ("fixed_small", None),
    "fixed_large": ("fixed_large", None),
    "DDIM η = 0": ("fixed_small", 0.0),
}

Row = tuple[str | float | int, ...]


def calibration_of(pipe: DDPMPipeline, data: str) -> Calibration:
    """With 10,000 forwards on test images, 10 per timestep."""
    images = open_images(data, resolution=28, split="test", progress=False)
    batches = [to_model_range(images.batch(range(i, i + 250)).images) for i in range(0, 5000, 250)]
    generator = seeded_generator(0)
    return calibrate(pipe.unet, pipe.scheduler, batches, generator=generator, progress=True)


def stock_default(folder: Path) -> DiffusionPipeline:
    """Stock's pipeline and scheduler with its own defaults for what sampling may choose."""
    pipe = open_model(folder, stock=True)
    config = {k: v for k, v in pipe.scheduler.config.items() if not k.startswith("_")}
    for name in ("timestep_spacing", "variance_type", "clip_sample"):
        config.pop(name, None)
    pipe.scheduler = diffusers.DDPMScheduler(**config)
    return pipe


def choices() -> Iterator[tuple[str, VarianceType, float | None, str]]:
    """Samplers as (name, variance type, η of DDIM, spacing)."""
    for name, (variance, eta) in PLAIN.items():
        yield name, variance, eta, "trailing"
    for spacing in SPACINGS:
        for name, (variance, eta) in VARIANCES.items():
            yield name, variance, eta, spacing


def measure(judge: Judge, folder: Path, data: str, steps: list[int]) -> Iterator[Row]:
    """(variance, spacing, K, distance, ratio to the first row of this K, stock's default)."""
    pipe = open_model(folder)
    found = calibration_of(pipe, data)
    for K in steps:
        stock = judge.distance(stock_default(folder), K)
        yield "stock DDPMScheduler's default: fixed_small", "leading", K, stock, 1.0
        for name, variance, eta, spacing in choices():
            own = pipe.scheduler.with_calibration(
                found, variance_type=variance, timestep_spacing=spacing
            )
            distance = judge.distance(DDPMPipeline(pipe.unet, own), K, eta=eta)
            yield name, spacing, K, distance, distance / stock


def report(rows: list[Row], num_images: int) -> None:
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
        f"{num_images:,} images of each sampler with the same noise.",
        columns=("model", "variance", "spacing", "K", "distance", "÷ stock's default"),
        rows=rows,
    )


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], num_images=1000)
    parser.add_argument("--K", type=int, nargs="+", default=[25])
    options = parser.parse_args()
    judge = make_judge(options.features, options.data, options.num_images)
    rows: list[Row] = []
    for model, (steps, words) in MODELS.items():
        folder = train_recipe(options.output, options.data, words, steps=steps)
        for row in measure(judge, folder, options.data, options.K):
            rows.append((model, *row))
            print(rows[-1], flush=True)
            report(rows, options.num_images)


if __name__ == "__main__":
    main()
