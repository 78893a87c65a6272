"""Train the small feature extractor that Fréchet distances of small images are measured in.

    python examples/train_features.py --data /usr/share/datasets/fashion-mnist --output features

On Fashion-MNIST (Debian: `apt install dataset-fashion-mnist`) it takes under 3 minutes on 2 cores.
Any data with class labels will do: IDX files as there, or a folder with one folder per class. The
directory written holds config.json and model.safetensors; measure with it by
`ddpm evaluate MODEL --data DIR --features features`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from ddpm_pipeline.data import ImageData, open_images, random_flip
from ddpm_pipeline.evaluation import SmallFeatures, SmallFeaturesConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the training."""

    data: str
    """Images with class labels."""
    split: str | None = "train"
    """Which part of the data to train on; None where it has no parts."""
    test_split: str | None = "test"
    """Which part to report the accuracy on; None reports none."""
    output: str = "features"
    """Directory to write."""
    resolution: int = 28
    """Height and width of the images, a multiple of 4."""
    dim: int = 64
    """Number of features."""
    epochs: int = 8
    """Passes over the data."""
    batch_size: int = 128
    """Images per step."""
    learning_rate: float = 4e-3
    """Peak of the one-cycle learning-rate schedule."""
    seed: int = 0
    """Seed of weights, order and flips."""
    threads: int = 2
    """Threads that torch uses."""


def fit(network: SmallFeatures, data: ImageData, config: Config) -> None:
    """Train by AdamW with a one-cycle learning rate and random horizontal flips."""
    batches = len(data) // config.batch_size
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, config.epochs * batches
    )
    for epoch in range(config.epochs):
        order = torch.randperm(len(data)).split(config.batch_size)
        for images, labels in map(data.batch, order[:batches]):
            logits = network.logits(random_flip(images))
            loss = cross_entropy(logits, labels, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{config.epochs}: loss {loss.item():.3f}", flush=True)


@torch.no_grad()
def accuracy(network: SmallFeatures, data: ImageData) -> float:
    """Share of images that the classifier labels right."""
    batches = [data.batch(indices) for indices in torch.arange(len(data)).split(1000)]
    right = sum((network.logits(x).argmax(1) == labels).sum().item() for x, labels in batches)
    return right / len(data)


def main(config: Config) -> None:
    """Train, save, and print time and accuracy."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    options = {"resolution": config.resolution, "labels": True}
    data = open_images(config.data, split=config.split, **options)
    start = time.perf_counter()
    shape = SmallFeaturesConfig(
        channels=data.channels,
        size=config.resolution,
        dim=config.dim,
        num_classes=data.num_classes,
    )
    network = SmallFeatures(shape).to(memory_format=torch.channels_last)
    fit(network.train(), data, config)
    network.eval().save_pretrained(config.output)
    print(f"saved to {config.output} after {time.perf_counter() - start:.0f} s")
    if config.test_split is not None:
        test = open_images(config.data, split=config.test_split, **options)
        print(f"test accuracy {accuracy(network, test):.4f}")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config, description=__doc__))
