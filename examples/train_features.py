"""Train the small feature extractor that Fréchet distances of small grey images are measured in.

    python examples/train_features.py --data /usr/share/datasets/fashion-mnist --output features

The data are the four IDX files of MNIST's form (Debian: `apt install dataset-fashion-mnist`).
Training takes under 3 minutes on 2 cores. The directory written holds config.json and
model.safetensors; `ddpm evaluate MODEL --data DIR --features features` measures with it.
"""

from __future__ import annotations

import gzip
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ddpm_pipeline.features import SmallFeatures, SmallFeaturesConfig


@dataclass(frozen=True)
class Config:
    """Arguments:
    data: Directory with train-images-idx3-ubyte.gz and its three siblings.
    output: Directory to write the extractor to.
    epochs: Passes over the training set.
    batch_size: Images per step.
    learning_rate: Peak of the one-cycle learning-rate schedule.
    seed: Seed of initial weights, order and flips.
    threads: Threads that torch uses.
    network: The network's shape.
    """

    data: Path
    output: Path = Path("features")
    epochs: int = 8
    batch_size: int = 128
    learning_rate: float = 4e-3
    seed: int = 0
    threads: int = 2
    network: SmallFeaturesConfig = SmallFeaturesConfig()


def read_idx(path: Path) -> Tensor:
    """The uint8 array of a gzipped IDX file; its fourth byte says how many dimensions it has."""
    raw = gzip.decompress(path.read_bytes())
    dims = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return torch.from_numpy(
        np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(dims).copy()
    )


def read_split(directory: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 1, H, W) and labels int64 (N,) of split "train" or "t10k"."""
    images = read_idx(directory / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(directory / f"{split}-labels-idx1-ubyte.gz")
    return images.unsqueeze(1), labels.long()


def fit(network: SmallFeatures, images: Tensor, labels: Tensor, config: Config) -> None:
    """Train by AdamW with a one-cycle learning rate and random horizontal flips."""
    steps = config.epochs * (len(images) // config.batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, steps)
    for epoch in range(config.epochs):
        order = torch.randperm(len(images))
        for batch in order.split(config.batch_size)[: len(images) // config.batch_size]:
            flip = torch.rand(len(batch), 1, 1, 1) < 0.5
            x = torch.where(flip, images[batch].flip(-1), images[batch])
            loss = cross_entropy(network.logits(x), labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{config.epochs}: loss {loss.item():.3f}", flush=True)


@torch.no_grad()
def accuracy(network: SmallFeatures, images: Tensor, labels: Tensor) -> float:
    """Share of images that the classifier labels right."""
    scores = torch.cat([network.logits(batch) for batch in images.split(1000)])
    return (scores.argmax(1) == labels).double().mean().item()


def main(config: Config) -> None:
    """Train, save, and print accuracy and time."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    start = time.perf_counter()
    network = SmallFeatures(config.network).to(memory_format=torch.channels_last)
    fit(network.train(), *read_split(config.data, "train"), config)
    network.eval().save_pretrained(config.output)
    seconds = time.perf_counter() - start
    print(f"trained in {seconds:.0f} s; test accuracy ", end="")
    print(f"{accuracy(network, *read_split(config.data, 't10k')):.4f}; saved to {config.output}")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config, description=__doc__))
