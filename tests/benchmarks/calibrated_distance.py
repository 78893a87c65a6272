"""What calibration gains in Fréchet distance at few steps, beside stock's default sampler.

    python tests/benchmarks/calibrated_distance.py \
        --data fashion-mnist/ --features features/ --output runs/time/ours-938

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

SPACINGS = ("linspace", "trailing", "quadratic", "optimal", "optimal_samples")
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


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], num_images=1000)
    parser.add_argument("--steps", type=int, nargs="+", default=[25])
    options = parser.parse_args()
    judge = make_judge(options.features, options.data, options.num_images)
    pipe = open_model(options.output)
    found = calibration_of(pipe, options.data)
    rows: list[list[str | float | int]] = []
    for K in options.steps:
        stock = judge.distance(stock_default(options.output), K)
        rows.append(["stock DDPMScheduler's default: fixed_small", "leading", K, stock, 1.0])
        print(rows[-1], flush=True)
        choices = [(n, v, s) for n, v in PLAIN.items() for s in ("trailing",)]
        choices += [(n, v, s) for n, v in VARIANCES.items() for s in SPACINGS]
        for name, (variance, eta), spacing in choices:
            own = pipe.scheduler.with_calibration(
                found, variance_type=variance, timestep_spacing=spacing
            )
            distance = judge.distance(DDPMPipeline(pipe.unet, own), K, eta=eta)
            rows.append([name, spacing, K, distance, distance / stock])
            print(rows[-1], flush=True)
    record(
        "calibrated_distance",
        title="Few steps: variances and spacings",
        command="python tests/benchmarks/calibrated_distance.py --data fashion-mnist/ "
        "--features features/ --output runs/time/ours-938",
        text=f"One model (938 updates of `ddpm train` on Fashion-MNIST, v-prediction, cosine "
        f"schedule), calibrated with {found.num_forwards:,} forwards on test images; "
        f"{options.num_images:,} images of each sampler with the same noise.",
        columns=("variance", "spacing", "K", "distance", "÷ stock's default"),
        rows=rows,
    )


if __name__ == "__main__":
    main()
