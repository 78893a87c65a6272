"""What the defaults of training are worth: other options beside them, at equal updates.

    python tests/benchmarks/recipes.py \
        --data fashion-mnist/ --features features/ --output runs/recipes
"""

from __future__ import annotations

from results import record
from trained_models import arguments, make_judge, open_model, train_recipe

RECIPES: dict[str, str] = {
    "defaults": "",
    "defaults, another seed": "--seed 1",
    "AdamW (1e-3 after 100 updates), cosine decay": "--optimizer adamw --lr_scheduler cosine",
    "the 2020 paper's: --preset ddpm": "--preset ddpm --model_size small --train_batch_size 64 "
    "--dropout 0 --no_random_flip --lr_warmup_steps 100",
    "predict ε, linear schedule": "--prediction_type epsilon --ddpm_beta_schedule linear",
    "predict ε": "--prediction_type epsilon",
    "linear schedule": "--ddpm_beta_schedule linear",
    "learning rate 1e-3": "--learning_rate 1e-3",
    "learning rate 4e-3": "--learning_rate 4e-3",
    "cosine decay": "--lr_scheduler cosine",
    "constant learning rate": "--lr_scheduler constant_with_warmup",
    "uniform timesteps": "--timestep_sampler uniform",
    "min-SNR-γ": "--loss_weighting min_snr",
    "P2": "--loss_weighting p2",
    "stock's average": "--ema_inv_gamma 1 --ema_power 0.75 --ema_decay 0.9999",
    "no average": "--no_use_ema",
}


def report(rows: list[list[str | float]], steps: int, num_images: int) -> None:
    record(
        "recipes",
        title="The search for the defaults",
        command="python tests/benchmarks/recipes.py --data fashion-mnist/ --features features/ "
        "--output runs/recipes",
        text=f"Runs of `ddpm train` for {steps} updates with these options and else the defaults "
        "(in bf16: v, cosine schedule with zero terminal SNR, low-discrepancy timesteps, Muon and "
        "AdamW at 2e-3 after 25 updates, cooldown in the last fifth, average with 1/(1 + i/19), "
        f"batch 64); distance of {num_images:,} images from 25 steps of DDIM. The two rows of "
        "defaults differ in the seed alone, and so say how much of a difference is chance. "
        "`--optimizer adamw --lr_scheduler cosine` is the recipe that the defaults had to beat.",
        columns=("recipe", "options", "distance"),
        rows=rows,
    )


def main() -> None:
    options = arguments(__doc__.splitlines()[0], num_images=500, steps=200).parse_args()
    judge = make_judge(options.features, options.data, options.num_images)
    rows = []
    for name, words in RECIPES.items():
        folder = train_recipe(options.output, options.data, words, steps=options.steps)
        distance = judge.distance(open_model(folder), eta=0.0)
        rows.append([name, f"`{words}`" if words else "", distance])
        report(rows, options.steps, options.num_images)


if __name__ == "__main__":
    main()
