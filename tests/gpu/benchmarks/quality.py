"""Fréchet distance over seconds of training, stock's defaults beside ours, on Fashion-MNIST.

Distances are taken in the features of a small classifier that is trained here first, as
examples/train_features.py does. Stock is one run that is looked at on its way, with the time of
looking left out; ours are runs of their own, each with its start, compilation and last samples.
"""

from __future__ import annotations

import runpy
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import diffusers
import torch
from accelerate.state import AcceleratorState
from diffusers import DiffusionPipeline
from gpu.benchmarks.loops import png_folder
from gpu.benchmarks.training import setting_of
from gpu.found import NotBuilt
from gpu.machine import ROOT
from gpu.runs import labelled_images, run_options
from stock_training import stock_run

from ddpm_pipeline import DDPMPipeline, TrainingConfig, train
from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.data.pixels import uint8_from_unit_range
from ddpm_pipeline.evaluation import SmallFeatures, SmallFeaturesConfig, frechet_distance
from ddpm_pipeline.evaluation.metrics import Moments

if TYPE_CHECKING:
    from pathlib import Path

    from gpu.found import Found
    from gpu.place import Place
    from torch import Tensor

Point = tuple[int, float, float]  # updates, seconds, distance


@dataclass(frozen=True, eq=False)
class OnDevice:
    """All images of a data set on the device, as bytes, with their labels."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        indices = indices.to(self.images.device)
        return self.images[indices], self.labels[indices]


@dataclass(frozen=True, eq=False)
class Judge:
    """Measures distances to the training images."""

    network: SmallFeatures
    real: Moments
    num_images: int

    @torch.no_grad()
    def distance(self, pipe: DiffusionPipeline, **options: object) -> float:
        """Of so many images from 25 steps of a pipeline."""
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        drawn = pipe(self.num_images, generator, 25, output_type="np", **options).images
        levels = uint8_from_unit_range(torch.from_numpy(drawn).permute(0, 3, 1, 2))
        device = self.real.total.device
        pixels = torch.from_numpy(levels).permute(0, 3, 1, 2).to(device)
        moments = Moments(self.real.dim, device)
        moments.update(self.network(pixels))
        return frechet_distance(moments, self.real)


def quality(place: Place, found: Found) -> None:
    source = labelled_images(place) if place.rehearses else place.data
    if source is None:
        raise NotBuilt("there is no Fashion-MNIST on this machine")
    cache = place.folder / "cache"
    options = {"resolution": place.side, "labels": True, "progress": False, "cache_dir": cache}
    data = open_images(source, **options)
    judge = a_judge(place, data)
    found.table("run", "updates", "seconds", "distance")
    last = float("inf")
    for steps, seconds, distance in _stock(place, data, judge):
        found.row("stock, its defaults", steps, seconds, distance)
        last = distance
    first = None
    for steps, seconds, distance in _ours(place, source, judge):
        found.row("ddpm train", steps, seconds, distance)
        first = seconds if first is None and distance < last else first
    found.note(first_seconds_below_stocks_last=first, images=judge.num_images, K=25)
    found.say(f"below stock's last {last:.3g} after {first} s")


def a_judge(place: Place, data: ImageData) -> Judge:
    """Train the features, and take those of all training images."""
    example = runpy.run_path(str(ROOT / "examples" / "train_features.py"))
    images, labels = data.batch(torch.arange(len(data)))
    resident = OnDevice(images.to(place.device), labels.to(place.device))
    torch.manual_seed(0)
    shape = SmallFeaturesConfig(size=place.side, num_classes=data.num_classes)
    network = SmallFeatures(shape).to(place.device)
    settings = example["Config"](data="", epochs=place.pick(4, 1), batch_size=place.pick(128, 32))
    example["fit"](network.train(), resident, settings)
    network.eval().requires_grad_(requires_grad=False)
    real = Moments(shape.dim, place.device)
    for part in resident.images.split(4096):
        real.update(network(part))
    return Judge(network, real, place.pick(1000, 80))


def _stock(place: Place, data: ImageData, judge: Judge) -> Iterator[Point]:
    """One epoch of diffusers' example, looked at three times."""
    setting = setting_of(place, "small", 28, 1, 64)
    images = png_folder(place, place.side, data.batch(torch.arange(len(data))).images[:, 0])
    AcceleratorState._reset_state(reset_partial_state=True)
    looks = place.pick((235, 469, 938), (1, 2))
    run, seconds, done = stock_run(images, "no", setting=setting, steps=looks[-1]), 0.0, 0
    for look in looks:
        began = time.perf_counter()
        for _ in range(look - done):
            run.step()
        place.wait()
        seconds, done = seconds + time.perf_counter() - began, look
        folder = place.folder / f"quality-stock-{look}"
        run.save(folder)
        pipe = diffusers.DDPMPipeline.from_pretrained(folder).to(place.device)
        yield look, seconds, judge.distance(pipe)


def _ours(place: Place, source: str, judge: Judge) -> Iterator[Point]:
    for steps in place.pick((190, 500, 1590), (2, 3)):
        folder: Path = place.folder / f"quality-{steps}"
        options = {"train_data_dir": source, "max_train_steps": steps}
        config = TrainingConfig(**run_options(place, folder.name, **options))
        place.wait()
        began = time.perf_counter()
        train(config)
        seconds = time.perf_counter() - began
        pipe = DDPMPipeline.from_pretrained(folder).to(place.device)
        yield steps, seconds, judge.distance(pipe, eta=0.0)
