"""What training for the bound gains in bits/dim, at equal updates.

    python tests/benchmarks/bound_training.py \
        --data fashion-mnist/ --features features/ --output runs/bound
"""

from __future__ import annotations

import torch
from results import record
from trained_models import Judge, arguments, make_judge, open_model, train_model

from ddpm_pipeline import BoundReport, DDPMPipeline, variational_bound
from ddpm_pipeline.common.randomness import seeded_generator
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.pixels import to_model_range

OPTIMIZER = ("--optimizer", "adamw", "--learning_rate", "1e-3", "--lr_warmup_steps", "100")
RUNS: dict[str, str] = {
    "simple, fixed_small": "",
    "simple, fixed_large": "--variance_type fixed_large",
    "hybrid, learned_range": "--loss hybrid --variance_type learned_range",
    "hybrid, learned_range, importance": "--loss hybrid --variance_type learned_range "
    "--timestep_sampler low_discrepancy_importance",
    "vlb, learned_range": "--loss vlb --variance_type learned_range",
    "vlb, learned_range, importance": "--loss vlb --variance_type learned_range "
    "--timestep_sampler low_discrepancy_importance",
}


def test_images(data: str, count: int) -> torch.Tensor:
    """Images of the test set in [-1, 1], drawn at random."""
    images = open_images(data, resolution=28, split="test", progress=False)
    chosen = torch.randperm(len(images), generator=seeded_generator(0))[:count]
    return to_model_range(images.batch(chosen).images)


def bound(pipe: DDPMPipeline, x_0: torch.Tensor) -> BoundReport:
    """The bound of the full chain, estimated from 8 timesteps of each image."""
    return variational_bound(
        pipe.unet,
        pipe.scheduler,
        x_0,
        num_timestep_samples=8,
        generator=seeded_generator(1),
        batch_size=128,
    )


def row(name: str, pipe: DDPMPipeline, x_0: torch.Tensor, judge: Judge) -> list[str | float]:
    found = bound(pipe, x_0)
    return [
        name,
        found.bits_per_dim,
        found.standard_error_timesteps,
        found.prior,
        float(sum(found.transitions)),
        found.decoder,
        judge.distance(pipe),
    ]


def main() -> None:
    options = arguments(
        __doc__.splitlines()[0], num_images=500, steps=300, bound_images=500
    ).parse_args()
    judge = make_judge(options.features, options.data, options.num_images)
    x_0, rows = test_images(options.data, options.bound_images), []
    for name, words in RUNS.items():
        folder = options.output / name.replace(", ", "-")
        steps = ("--max_train_steps", str(options.steps), *OPTIMIZER)
        train_model(folder, options.data, *steps, *words.split())
        rows.append(row(name, open_model(folder), x_0, judge))
        print(rows[-1], flush=True)
    record(
        "bound_training",
        title="Training for the bound",
        command="python tests/benchmarks/bound_training.py --data fashion-mnist/ "
        "--features features/ --output runs/bound",
        text=f"Bits/dim of {len(x_0):,} test images (8-bit decoder, all T = 1000 steps, 8 "
        f"timesteps drawn per image, the same for every model) after {options.steps} updates of "
        "`ddpm train` with these options, AdamW at 1e-3 and else its defaults, and the Fréchet "
        f"distance of {options.num_images:,} images from 25 steps of DDPM with the model's "
        "variances.",
        columns=(
            "loss, variance",
            "bits/dim",
            "± over timesteps",
            "prior",
            "transitions",
            "decoder",
            "distance",
        ),
        rows=rows,
    )


if __name__ == "__main__":
    main()
