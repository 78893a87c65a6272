r"""Feature extractors: the map phi(image) in which sets of images are compared.

    phi = load_features("inception")              # the standard one, of FID; needs torch-fidelity
    phi = load_features("facebook/dinov2-large")  # a vision model of transformers (FD-DINOv2)
    phi = load_features("features/")              # a SmallFeatures, for small images
    phi = load_features("mine.py")                # the module that its feature_extractor() returns

    features = phi(images)                        # uint8 (B, C, H, W) -> float32 (B, D)

examples/train_features.py trains a ``SmallFeatures``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ddpm_pipeline.common import float32_arithmetic, is_repo_id, moved, weights_hash
from ddpm_pipeline.evaluation.small_features import SmallFeatures, read_config

__all__ = ["FeatureExtractor", "VisionFeatures", "load_features"]

FACTORY_NAME = "feature_extractor"


@dataclass(frozen=True, eq=False)
class FeatureExtractor:
    """A network that maps images to features, and what a report must say about it.

    Arguments:
        network: Maps uint8 images (B, C, H, W) to features (B, D).
        name: What it is.
        resize: How it brings images to its own size.
        fingerprint: Hash of all that determines the features.
        device: Where the network is.
    """

    network: nn.Module
    name: str
    resize: str
    fingerprint: str
    device: torch.device | str = "cpu"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Give features (B, D), float32, of uint8 images (B, C, H, W) on any device.

        Float32 is IEEE's, so that features of different machines can be compared.

        Raises:
            TypeError: If the images are not uint8, or the network returns no tensor.
            ValueError: If the images or the features have a wrong shape.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f"images must be uint8, got {images.dtype}")
        if images.dim() != 4:
            raise ValueError(f"images must be (B, C, H, W), got {tuple(images.shape)}")
        with float32_arithmetic(tf32=False):
            features = self.network(moved(images, self.device))
        if not isinstance(features, Tensor):
            raise TypeError(
                f"features={self.name} returned a {type(features).__name__}, no tensor"
            )
        if features.dim() != 2 or len(features) != len(images):
            raise ValueError(
                f"features={self.name} must return ({len(images)}, D) for {len(images)} images, "
                f"got {tuple(features.shape)}"
            )
        return features.float()


def load_features(source: str | Path, device: torch.device | str = "cpu") -> FeatureExtractor:
    """Load the feature extractor that a name, a directory or a file stands for.

    Arguments:
        source: "inception"; a .py file that defines ``feature_extractor() -> torch.nn.Module``; a
            directory that `SmallFeatures.save_pretrained` wrote; the directory or the Hub name of
            a vision model of transformers, whose weights are safetensors. Code that comes with a
            model is never run; a .py file is, as it is the caller's own.
        device: Where the network is put.
    Raises:
        ImportError: If the library it needs is not installed; names what to install.
        ValueError: If it is none of these.
    """
    path = Path(source).expanduser()
    if str(source) == "inception":
        extractor = _inception()
    elif path.suffix == ".py":
        extractor = _from_file(path)
    elif path.is_dir() and "model_type" not in read_config(path):
        extractor = _small(path)
    else:
        extractor = _from_transformers(str(path) if path.exists() else str(source))
    extractor.network.eval().requires_grad_(requires_grad=False).to(device)
    return replace(extractor, device=device)


def _fingerprint(network: nn.Module, *settings: str) -> str:
    key = "\n".join([type(network).__name__, weights_hash(network), *settings])
    return hashlib.sha256(key.encode()).hexdigest()


def _small(directory: Path) -> FeatureExtractor:
    network = SmallFeatures.from_pretrained(directory)
    name = f"SmallFeatures {network.config.dim} {weights_hash(network)[:8]}"
    return FeatureExtractor(network, name, "none", _fingerprint(network))


def _as_rgb(images: Tensor) -> Tensor:
    """Give images 3 channels: grey ones are repeated."""
    if images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    if images.shape[1] == 3:
        return images
    raise ValueError(f"these features are for grey or RGB images, got {images.shape[1]} channels")


class VisionFeatures(nn.Module):
    """A vision model of transformers, with its preprocessing, on the images' device.

    The features are the model's pooled output (for DINOv2 the normalised class token), or the mean
    over its positions where it has none.

    Arguments:
        model: Takes `pixel_values` (B, 3, S, S).
        size: S; images are resized to it, bicubic with antialiasing.
        mean, std: What their channels in [0, 1] are normalised by.
    """

    def __init__(
        self, model: nn.Module, size: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.model, self.size = model, size
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Give features (B, D) of uint8 images (B, 1 or 3, H, W)."""
        x = _as_rgb(images).float() / 255
        size = (self.size, self.size)
        x = interpolate(x, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        output = self.model(pixel_values=(x - self.mean) / self.std)
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        hidden = output.last_hidden_state
        return hidden.mean(1) if hidden.dim() == 3 else hidden.mean((-1, -2))


def _from_transformers(name: str) -> FeatureExtractor:
    allowed = (
        f"features={name!r} must be 'inception', a .py file, a directory of features, or a vision "
        "model of transformers that can be loaded"
    )
    if not Path(name).exists() and not is_repo_id(name):  # no name to ask the Hub for
        raise ValueError(f"{allowed}: it does not exist")
    try:
        from transformers import AutoModel
        from transformers.image_processing_base import ImageProcessingMixin
    except ImportError as error:
        raise ImportError(
            f"features={name!r} needs transformers: pip install ddpm_pipeline[eval]"
        ) from error
    try:
        model, loading = AutoModel.from_pretrained(
            name, output_loading_info=True, trust_remote_code=False, use_safetensors=True
        )
        settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"{allowed}: {error}") from error
    model = getattr(model, "vision_model", model)
    _check_vision_model(name, model, loading["missing_keys"])
    network = VisionFeatures(
        model, _side(settings), tuple(settings["image_mean"]), tuple(settings["image_std"])
    )
    resize = f"bicubic, antialiased, to {network.size}×{network.size}"
    title = Path(name).name if Path(name).is_dir() else name
    settings_key = json.dumps([network.size, settings["image_mean"], settings["image_std"]])
    return FeatureExtractor(network, title, resize, _fingerprint(network, settings_key))


def _check_vision_model(name: str, model: nn.Module, missing: set[str]) -> None:
    if model.main_input_name != "pixel_values":
        raise ValueError(
            f"features={name!r} must be a vision model, but it takes {model.main_input_name}"
        )
    if missing:
        raise ValueError(
            f"features={name!r} lacks the weights of {', '.join(sorted(missing))}, which would be "
            "drawn at random"
        )


def _side(settings: dict[str, object]) -> int:
    """Find the model's image size: that of the crop if it crops, which resizing replaces here."""
    size = settings.get("crop_size") or settings["size"]
    if isinstance(size, int):
        return size
    return int(size.get("height") or size["shortest_edge"])


class _Inception(nn.Module):
    """torch-fidelity's Inception-v3 with the weights of the original FID, 2048 features."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except (ImportError, RuntimeError) as error:  # torchvision built for another torch
            raise ImportError(
                "features='inception' needs torch-fidelity and a torchvision that fits torch: "
                f"pip install ddpm_pipeline[eval] torch-fidelity ({error})"
            ) from error
        self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])

    def forward(self, images: Tensor) -> Tensor:
        return self.network(_as_rgb(images).contiguous())[0]


def _inception() -> FeatureExtractor:
    network = _Inception()
    name = "Inception-v3 2048 (torch-fidelity, FID's own weights)"
    resize = "bilinear as in TensorFlow 1, to 299×299"
    return FeatureExtractor(network, name, resize, _fingerprint(network))


def _from_file(path: Path) -> FeatureExtractor:
    if not path.is_file():
        raise ValueError(f"features={str(path)!r} does not exist")
    spec = importlib.util.spec_from_file_location(f"_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever it does
        raise ValueError(
            f"features={str(path)!r} cannot be run: {type(error).__name__}: {error}"
        ) from error
    factory = getattr(module, FACTORY_NAME, None)
    if not callable(factory):
        raise ValueError(f"features={str(path)!r} must define {FACTORY_NAME}()")
    network = factory()
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"{FACTORY_NAME}() in {str(path)!r} must return a torch.nn.Module, got "
            f"{type(network).__name__}"
        )
    resize = getattr(network, "resize", f"as {path.name} does")
    return FeatureExtractor(network, path.name, resize, _fingerprint(network, path.read_text()))
