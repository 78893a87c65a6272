"""What calibration gains in Fréchet distance at few steps, beside stock's default sampler.

    python tests/benchmarks/calibrated_distance.py \
        --data fashion-mnist/ --features features/ --output runs/time/ours-1600

Output is the folder of a trained model; it is calibrated on test images, and not changed.
"""

from __future__ import annotations

from pathlib import Path

import diffusers
from diffusers import DiffusionPipeline
from results import record
from trained_models import arguments, make_judge, open_model

from ddpm_pipeline import Calibration, DDPMPipeline, calibrate
from ddpm_pipeline.data import open_images, seeded_generator, to_model_range

SPACINGS = ("trailing", "optimal_samples", "quadratic", "linspace", "optimal")
VARIANCES = {"analytic": ("analytic", None), "analytic, DDIM η = 0": ("analytic", 0.0)}
PLAIN = {
    "fixed_small": ("fixed_small", None),
    "fixed_large": ("fixed_large", None),
    "DDIM η = 0": ("fixed_small", 0.0),
}


def calibration_of(pipe: DDPMPipeline, data: str) -> Calibration:
    """From 10 test images at each timestep."""
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


def report(rows: list[list[str | float | int]], found: Calibration, num_images: int) -> None:
    record(
        "calibrated_distance",
        title="Few steps: variances and spacings",
        command="python tests/benchmarks/calibrated_distance.py --data fashion-mnist/ "
        "--features features/ --output runs/time/ours-1600",
        text="One model, trained here by `ddpm train` with its defaults for 1,600 updates on "
        "Fashion-MNIST (v, cosine β, zero terminal SNR), and calibrated with "
        f"{found.num_forwards:,} forwards on test images; "
        f"{num_images:,} images of each sampler with the same noise.",
        columns=("variance", "spacing", "K", "distance", "÷ stock's default"),
        rows=rows,
    )


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], num_images=1000)
    parser.add_argument("--steps", type=int, nargs="+", default=[25])
    options = parser.parse_args()
    judge = make_judge(options.features, options.data, options.num_images)
    pipe = open_model(options.output)
    found = calibration_of(pipe, options.data)
    rows: list[list[str | float | int]] = []
    choices = [(*choice, "trailing") for choice in PLAIN.items()]
    choices += [(*choice, spacing) for spacing in SPACINGS for choice in VARIANCES.items()]
    for K in options.steps:
        stock = judge.distance(stock_default(options.output), K)
        rows.append(["stock DDPMScheduler's default: fixed_small", "leading", K, stock, 1.0])
        for name, (variance, eta), spacing in choices:
            own = pipe.scheduler.with_calibration(
                found, variance_type=variance, timestep_spacing=spacing
            )
            distance = judge.distance(DDPMPipeline(pipe.unet, own), K, eta=eta)
            rows.append([name, spacing, K, distance, distance / stock])
            print(rows[-1], flush=True)
            report(rows, found, options.num_images)


if __name__ == "__main__":
    main()
