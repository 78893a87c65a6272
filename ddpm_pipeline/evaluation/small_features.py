"""Features for small images: a classifier that anybody trains in minutes, cut before its end.

    network = SmallFeatures(SmallFeaturesConfig(channels=1, size=28))      train it on labels
    network.save_pretrained("features/")
    network = SmallFeatures.from_pretrained("features/")
    features = network(images)                   uint8 (B, C, H, W) -> float32 (B, D)

Inception's features are made for photographs; those of digits say little. What a network that was
trained on the data itself tells apart is a fairer measure of such images.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from ddpm_pipeline.common import check_integer, load_tensors, write_bytes, write_text

__all__ = ["SmallFeatures", "SmallFeaturesConfig", "read_config"]

_CONFIG_NAME = "config.json"
_WEIGHTS_NAME = "model.safetensors"
# A config may come from anywhere, and a network of it is built before its weights are looked at.
_MOST_CHANNELS, _MOST_CLASSES, _LONGEST_SIDE = 4_096, 1_000_000, 1_024
_MOST_WEIGHTS = 2**28  # of a matrix: 1 GiB


@dataclass(frozen=True)
class SmallFeaturesConfig:
    """Shape of a `SmallFeatures` network.

    Raises:
        ValueError: If a number is none, or larger than any that is needed; names it.
    """

    channels: int = 1
    """Channels of the images; 1 is grey."""
    size: int = 28
    """Height and width of the images, a multiple of 4."""
    widths: tuple[int, int, int] = (16, 32, 64)
    """Channels after each of the three convolutions."""
    dim: int = 64
    """Number of features."""
    num_classes: int = 10
    """Classes of the labels that it is trained on."""

    def __post_init__(self) -> None:
        if len(self.widths) != 3:
            raise ValueError(f"widths must be 3 numbers of channels, got {self.widths!r:.100}")
        for name, values, most in (
            ("channels", (self.channels,), _MOST_CHANNELS),
            ("size", (self.size,), _LONGEST_SIDE),
            ("widths", self.widths, _MOST_CHANNELS),
            ("dim", (self.dim,), _MOST_CHANNELS),
            ("num_classes", (self.num_classes,), _MOST_CLASSES),
        ):
            for value in values:
                check_integer(f"{name} of SmallFeatures", value, most=most)
        rows = max(self.widths[-1] * (self.size // 4) ** 2, self.num_classes)
        if rows * self.dim > _MOST_WEIGHTS:
            raise ValueError(
                f"dim={self.dim} of SmallFeatures takes a matrix of {rows:,} rows with "
                f"size={self.size}, widths={self.widths} and num_classes={self.num_classes}; at "
                f"most {_MOST_WEIGHTS:,} weights are allowed"
            )


class SmallFeatures(nn.Module):
    """A small classifier whose penultimate layer serves as features.

    Arguments:
        config: The network's shape.
    """

    def __init__(self, config: SmallFeaturesConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SmallFeaturesConfig()
        first, second, third = config.widths
        self.stages = nn.Sequential(
            _convolution(config.channels, first),
            nn.MaxPool2d(2),
            _convolution(first, second),
            nn.MaxPool2d(2),
            _convolution(second, third),
        )
        self.project = nn.Linear(third * (config.size // 4) ** 2, config.dim)
        self.classify = nn.Linear(config.dim, config.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Give features (B, D), float32, of uint8 images (B, C, H, W) of the trained size.

        Raises:
            ValueError: If the images have another size or other channels.
        """
        size = self.config.size
        if images.shape[1:] != (self.config.channels, size, size):
            raise ValueError(
                f"these features are for images of {self.config.channels} channel(s) and "
                f"{size}×{size} pixels, got (B, C, H, W) = {tuple(images.shape)}"
            )
        x = images.to(self.project.weight.dtype) / 127.5 - 1
        return self.project(self.stages(x).flatten(1)).relu()

    def logits(self, images: Tensor) -> Tensor:
        """Give class scores (B, num_classes) of uint8 images (B, C, H, W)."""
        return self.classify(self(images))

    def save_pretrained(self, directory: str | Path) -> None:
        """Write config.json and model.safetensors to a directory."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        write_bytes(directory / _WEIGHTS_NAME, save(tensors))
        config = json.dumps(asdict(self.config), indent=2) + "\n"
        write_text(directory / _CONFIG_NAME, config)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> SmallFeatures:
        """Load what `save_pretrained` wrote, in evaluation mode.

        Raises:
            ValueError: If the directory holds no such network.
        """
        config = read_config(Path(directory))
        try:
            network = cls(SmallFeaturesConfig(**{**config, "widths": tuple(config["widths"])}))
            network.load_state_dict(load_tensors(Path(directory, _WEIGHTS_NAME)))
        except (KeyError, TypeError, AttributeError, FileNotFoundError) as error:
            raise ValueError(
                f"features={str(directory)!r} is neither a SmallFeatures network nor a vision "
                "model of transformers"
            ) from error
        except ValueError as error:
            raise ValueError(f"features={str(directory)!r}: {_CONFIG_NAME}: {error}") from error
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(
                f"features={str(directory)!r} is damaged, {_WEIGHTS_NAME}: {error}"
            ) from error
        return network.eval()


def _convolution(fan_in: int, fan_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU()
    )


def read_config(directory: Path) -> dict[str, object]:
    """Read the config of a directory of features, of this kind or of transformers.

    Raises:
        ValueError: If it holds none.
    """
    try:
        config = json.loads((directory / _CONFIG_NAME).read_bytes())
    except (FileNotFoundError, ValueError, RecursionError) as error:
        raise ValueError(
            f"features={str(directory)!r} holds no readable {_CONFIG_NAME}"
        ) from error
    if not isinstance(config, dict):
        raise ValueError(f"features={str(directory)!r}: {_CONFIG_NAME} holds no object")
    return config
