r"""Feature extractors: the map phi(image) in which sets of images are compared.

An extractor is a `torch.nn.Module` that takes uint8 images (B, C, H, W) and returns features (B, D).

    phi = SmallFeatures(...)          a convnet classifier's penultimate layer, for small images;
                                      `examples/train_features.py` trains one in under 3 minutes on 2 cores
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

__all__ = ["SmallFeatures", "SmallFeaturesConfig"]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


@dataclass(frozen=True)
class SmallFeaturesConfig:
    """Shape of a `SmallFeatures` network.

    Arguments:
        channels: Channels of the images; 1 is grey.
        size: Height and width of the images, divisible by 4.
        widths: Channels after each of the three convolution stages.
        dim: Number of features.
        num_classes: Classes of the labels that it is trained on.
    """

    channels: int = 1
    size: int = 28
    widths: tuple[int, int, int] = (16, 32, 64)
    dim: int = 64
    num_classes: int = 10


def conv(fan_in: int, fan_out: int) -> nn.Sequential:
    """A 3×3 convolution with batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU()
    )


class SmallFeatures(nn.Module):
    """A small classifier whose penultimate layer serves as features.

    Arguments:
        config: The network's shape.
    """

    def __init__(self, config: SmallFeaturesConfig = SmallFeaturesConfig()) -> None:
        super().__init__()
        self.config = config
        first, second, third = config.widths
        self.stages = nn.Sequential(
            conv(config.channels, first),
            nn.MaxPool2d(2),
            conv(first, second),
            nn.MaxPool2d(2),
            conv(second, third),
        )
        self.project = nn.Linear(third * (config.size // 4) ** 2, config.dim)
        self.classify = nn.Linear(config.dim, config.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, D), float32, of uint8 images (B, C, H, W)."""
        x = images.to(self.project.weight.dtype) / 127.5 - 1
        return self.project(self.stages(x).flatten(1)).relu()

    def logits(self, images: Tensor) -> Tensor:
        """Class scores (B, num_classes) of uint8 images (B, C, H, W)."""
        return self.classify(self(images))

    def save_pretrained(self, directory: str | Path) -> None:
        """Write config.json and model.safetensors to a directory."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / CONFIG_NAME).write_text(json.dumps(asdict(self.config), indent=2) + "\n")
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, directory / WEIGHTS_NAME)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> SmallFeatures:
        """The network that `save_pretrained` wrote, in evaluation mode."""
        directory = Path(directory)
        config = json.loads((directory / CONFIG_NAME).read_text())
        network = cls(SmallFeaturesConfig(**{**config, "widths": tuple(config["widths"])}))
        network.load_state_dict(load_file(directory / WEIGHTS_NAME))
        return network.eval()
