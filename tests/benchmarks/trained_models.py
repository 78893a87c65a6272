"""Train models as a user does, and measure how far their images are from real ones."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from diffusers import DiffusionPipeline

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.pixels import uint8_from_unit_range
from ddpm_pipeline.evaluation.features import FeatureExtractor, load_features
from ddpm_pipeline.evaluation.metrics import Moments, frechet_distance
from ddpm_pipeline.evaluation.statistics import reference_statistics
from ddpm_pipeline.networks import computes_in_bfloat16

__all__ = ["Judge", "arguments", "make_judge", "open_model", "train_model", "train_recipe"]

BATCH = 50


def arguments(description: str, **defaults: int) -> argparse.ArgumentParser:
    """--data, --features and --output, which all these scripts need, and some integers."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", required=True, help="IDX files of Fashion-MNIST")
    parser.add_argument("--features", required=True, help="what train_features.py wrote")
    parser.add_argument("--output", type=Path, required=True, help="folder of the models")
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser


@dataclass(frozen=True, eq=False)
class Judge:
    """Measures Fréchet distances to one set of real images."""

    extractor: FeatureExtractor
    real: Moments
    num_images: int
    first_seed: int = 0

    @torch.no_grad()
    def distance(self, pipe: DiffusionPipeline, K: int = 25, **options: object) -> float:
        """Distance of num_images images from K steps of a pipeline, ours or stock.

        In bf16 where the processor computes in it, else in float32, which is faster there.
        """
        bf16 = computes_in_bfloat16(torch.device("cpu"))
        pipe.set_progress_bar_config(disable=True)
        pipe.unet.eval()
        drawn = Moments(self.real.dim)
        for i in range(self.num_images // BATCH):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                images = pipe(
                    batch_size=BATCH,
                    generator=torch.Generator().manual_seed(self.first_seed + i),
                    num_inference_steps=K,
                    output_type="np",
                    **options,
                ).images
            levels = uint8_from_unit_range(torch.from_numpy(images).permute(0, 3, 1, 2))
            drawn.update(self.extractor(torch.from_numpy(levels).permute(0, 3, 1, 2)))
        return frechet_distance(drawn, self.real)


def make_judge(features: str, data: str, num_images: int) -> Judge:
    """A judge that compares with all training images."""
    extractor = load_features(features)
    real = reference_statistics(open_images(data, resolution=28, progress=False), extractor)
    return Judge(extractor, real.moments, num_images)


def open_model(folder: Path, *, stock: bool = False) -> DiffusionPipeline:
    """The model of a folder in our pipeline, or in stock's."""
    kind = diffusers.DDPMPipeline if stock else DDPMPipeline
    return kind.from_pretrained(str(folder))


def train_model(folder: Path, data: str, *options: str) -> float:
    """``ddpm train`` with these options, unless the folder holds their model; seconds it took.

    Raises:
        ValueError: If the folder holds a model of other options.
    """
    kept = folder / "benchmark.json"
    if kept.exists():
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["options"] != list(options):
            raise ValueError(f"{folder} holds a model of {found['options']}, not of {options}")
        return found["seconds"]
    words = ["--train_data_dir", data, "--resolution", "28", "--output_dir", str(folder)]
    start = time.perf_counter()
    subprocess.run(
        [str(Path(sys.executable).with_name("ddpm")), "train", *words, *options],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - start
    kept.write_text(json.dumps({"options": options, "seconds": seconds}), encoding="utf-8")
    return seconds


def train_recipe(output: Path, data: str, words: str, *, steps: int) -> Path:
    """The folder in output of a model trained for so many updates with these options."""
    folder = output / "-".join(words.replace("--", "").split() or ["defaults"])
    train_model(folder, data, "--max_train_steps", str(steps), *words.split())
    return folder
