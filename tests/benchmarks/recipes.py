"""What each default of training is worth: one changed at a time, at equal updates.

    python tests/benchmarks/recipes.py \
        --data fashion-mnist/ --features features/ --output runs/recipes
"""

from __future__ import annotations

from results import record
from trained_models import arguments, make_judge, open_model, train_model

ADAMW = "--optimizer adamw --learning_rate 1e-3 --lr_warmup_steps 100"
RECIPES: dict[str, str] = {
    "defaults": "",
    "defaults, another seed": "--seed 1",
    "AdamW at 1e-3, 100 updates of warm-up": ADAMW,
    "the 2020 paper's: --preset ddpm": "--preset ddpm --model_size small --train_batch_size 64 "
    "--dropout 0 --no_random_flip --lr_warmup_steps 100",
    "predict ε, linear schedule": "--prediction_type epsilon --ddpm_beta_schedule linear",
    "predict ε": "--prediction_type epsilon",
    "linear schedule": "--ddpm_beta_schedule linear",
    "learning rate 1e-3": "--learning_rate 1e-3",
    "learning rate 4e-3": "--learning_rate 4e-3",
    "100 updates of warm-up": "--lr_warmup_steps 100",
    "constant learning rate": "--lr_scheduler constant_with_warmup",
    "uniform timesteps": "--timestep_sampler uniform",
    "min-SNR-5 weights": "--loss_weighting min_snr",
    "P2 weights": "--loss_weighting p2",
    "average with power ¾": "--ema_decay 0.9999 --ema_inv_gamma 1 --ema_power 0.75",
    "no average of weights": "--no_use_ema",
    "AdamW (0.95, 0.999) beside Muon": "--adam_beta1 0.95 --adam_beta2 0.999",
    "half the batch, twice the updates": "--train_batch_size 32 --max_train_steps 400",
}


def report(rows: list[list[str | float]], steps: int, num_images: int) -> None:
    record(
        "recipes",
        title="The search for the defaults",
        command="python tests/benchmarks/recipes.py --data fashion-mnist/ --features features/ "
        "--output runs/recipes",
        text=f"Runs of `ddpm train` for {steps} updates with one option changed; distance of "
        f"{num_images:,} images from 25 steps of DDIM. The two rows of defaults differ in the "
        "seed alone, and so say how much of a difference is chance.",
        columns=("recipe", "options", "distance"),
        rows=rows,
    )


def main() -> None:
    options = arguments(__doc__.splitlines()[0], num_images=500, steps=200).parse_args()
    judge = make_judge(options.features, options.data, options.num_images)
    rows = []
    for name, words in RECIPES.items():
        folder = options.output / "-".join(words.replace("--", "").split() or ["defaults"])
        steps = ("--max_train_steps", str(options.steps))
        train_model(folder, options.data, *steps, *words.split())
        rows.append(
            [name, f"`{words}`" if words else "", judge.distance(open_model(folder), eta=0.0)]
        )
        report(rows, options.steps, options.num_images)


if __name__ == "__main__":
    main()
