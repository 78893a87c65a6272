"""How the length of an average, and guidance by an early one, change the distance to real images.

A class-conditional model is trained on Fashion-MNIST with snapshots of averages; then images of
averages of several lengths, and of one guided by earlier ones at equal K, are compared with the
test images in features:

    python tests/benchmarks/averages_and_guidance.py FASHION_MNIST FEATURES WORK

FEATURES is a folder that ``examples/train_features.py`` wrote. What is measured already is kept
in WORK, and a call that was stopped goes on with the rest. A run that was stopped is measured at
its last snapshot.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from results import record

from ddpm_pipeline import TrainingConfig, train
from ddpm_pipeline.common import write_json
from ddpm_pipeline.evaluation import EvaluateConfig, evaluate
from ddpm_pipeline.training import save_average

COMMAND = "python tests/benchmarks/averages_and_guidance.py fashion-mnist/ features/ work/"
LENGTHS = (0.02, 0.05, 0.1, 0.15, 0.25)
BASE = 0.05
STEPS = 6


@dataclass(frozen=True)
class Case:
    """A way of drawing: the average, and what guides it if anything does."""

    sigma_rel: float
    scale: float = 1.0
    guide: tuple[float, float] | None = None  # its length, and its update as a share of the run
    interval: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        words = f"average {self.sigma_rel:g}"
        if self.scale == 1:
            return words
        by = "the null class"
        if self.guide is not None:
            by = f"average {self.guide[0]:g} at {self.guide[1]:.0%} of the run"
        where = "" if self.interval is None else f", t in {self.interval}"
        return f"{words}, w = {self.scale:g} by {by}{where}"


CASES = [
    Case(BASE),
    Case(BASE, 1.5, (BASE, 0.25)),
    *(Case(length) for length in LENGTHS if length != BASE),
    Case(BASE, 2.0, (BASE, 0.25)),
    Case(BASE, 1.5, (BASE, 0.5)),
    Case(BASE, 1.5, (BASE, 0.25), (200, 800)),
    Case(BASE, 1.5),
    Case(BASE, 2.0, (BASE, 0.5)),
]


def measured(options: argparse.Namespace) -> dict:
    """Train if there is no run yet, then measure what was not measured yet."""
    run = Path(options.work, "run")
    if not (run / "post-hoc").is_dir():
        train(
            TrainingConfig(
                train_data_dir=options.data,
                output_dir=str(run),
                resolution=28,
                class_conditional=True,
                max_train_steps=1000,
                post_hoc_steps=25,
                checkpointing_steps=100,
            )
        )
    last = max(int(path.stem.removeprefix("step-")) for path in (run / "post-hoc").glob("step-*"))
    results = Path(options.work, "measured.json")
    found = json.loads(results.read_text()) if results.is_file() else {"cases": []}
    found |= {"updates": last, "num_images": options.images, "num_inference_steps": STEPS}
    known = {case["name"] for case in found["cases"]}
    for case in CASES:
        if case.name not in known:
            found["cases"].append(measure(case, run, last, options))
            write_json(results, found)
    return found


def measure(case: Case, run: Path, last: int, options: argparse.Namespace) -> dict:
    """Draw images in one way, and give their distance."""
    guide = None
    if case.guide is not None:
        guide = model_of(run, case.guide[0], round(last * case.guide[1] / 25) * 25)
    report = evaluate(
        EvaluateConfig(
            model=model_of(run, case.sigma_rel, last),
            guidance_model=guide,
            guidance_scale=case.scale,
            guidance_interval=case.interval,
            data=options.data,
            split="test",
            features=options.features,
            num_images=options.images,
            num_inference_steps=STEPS,
            solver="multistep",
            batch_size=64,
            num_nearest=0,
            bound_images=0,
        )
    )
    return {
        "name": case.name,
        "frechet_distance": report.frechet_distance,
        "kid": report.kid,
        "kid_standard_error": report.kid_standard_error,
        "precision": report.precision,
        "recall": report.recall,
    }


def model_of(run: Path, sigma_rel: float, step: int) -> str:
    """Make the model of an average, once."""
    folder = run.parent / f"average-{sigma_rel:g}-{step}"
    if not folder.is_dir():
        save_average(run, folder, sigma_rel, step)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("features")
    parser.add_argument("work")
    parser.add_argument("--images", type=int, default=320)
    write_down(measured(parser.parse_args()))


def write_down(found: dict) -> None:
    """Put both tables on the page of benchmarks."""
    cases, plain = {case["name"]: case for case in found["cases"]}, {case.name for case in CASES}
    lengths = {Case(length).name for length in LENGTHS}
    what = (
        f"A class-conditional run of default options on Fashion-MNIST, at update "
        f"{found['updates']:,} and before its cooldown, with snapshots every 25 updates; "
        f"{found['num_images']} images of {found['num_inference_steps']} multistep steps, the "
        "same noise in all rows, against the 10,000 test images. As few images raise every "
        "distance by as much, and leave an error of some units."
    )
    columns = ["distance", "KID", "± its error", "precision", "recall"]
    keys = ["frechet_distance", "kid", "kid_standard_error", "precision", "recall"]

    def rows(names: set[str]) -> list[list[str | float]]:
        order = [case.name for case in sorted(CASES, key=lambda case: case.sigma_rel)]
        return [[n, *(cases[n][k] for k in keys)] for n in order if n in names & cases.keys()]

    record(
        "post_hoc_averages",
        title="The length of the average",
        command=COMMAND,
        text=f"{what} Each row is an average that `ddpm average` made afterwards.",
        columns=["sigma_rel", *columns],
        rows=[[name.removeprefix("average "), *row] for name, *row in rows(lengths)],
    )
    guided = (plain - lengths) | {Case(BASE).name}
    record(
        "autoguidance",
        title="Guidance by an earlier average",
        command=COMMAND,
        text=f"{what} The first row is not guided; the others are, with weight w, at equal K.",
        columns=["images of", *columns],
        rows=rows(guided),
    )


if __name__ == "__main__":
    main()
