"""A working folder full of what goes wrong: damaged models, odd data, outputs in the way."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.evaluation import SmallFeatures, SmallFeaturesConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel

__all__ = ["WORKING_FEATURES", "make_place"]

WORKING_FEATURES = (
    "import torch\n\n\nclass Means(torch.nn.Module):\n    def forward(self, images):\n"
    "        values = images.float().flatten(1)\n"
    "        return torch.stack([values.mean(1), values.std(1)], 1)\n\n\n"
    "def feature_extractor():\n    return Means()\n"
)
WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")


def make_place(root: Path, tiny_unet: Callable[..., UNet2DModel]) -> None:
    """Fill a folder."""
    _save(tiny_unet(), root / "model")
    _save(tiny_unet(num_class_embeds=4), root / "classes")
    _save(tiny_unet(channels=3), root / "rgb_model")
    _save(tiny_unet(out_channels=2), root / "learned", variance_type="learned_range")
    _save_damaged(root)
    _save_images(root)
    _save_arrays(root)
    _save_features(root)
    (root / "empty").mkdir()
    for name in ("full/mine.txt", "words/a.txt", "file.txt", "words.csv"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("mine\n")
    for name in ("file.png", "file.npz", "taken.png"):
        (root / name).write_bytes(b"not one")
    (root / "folder.png").mkdir()
    (root / "folder.npz").mkdir()
    (root / "dangling").symlink_to("nowhere")
    for name, content in (
        ("options.json", {"resolution": 8}),
        ("unknown.json", {"no_such_option": 1}),
        ("list.json", [1]),
        ("wrong.json", {"resolution": "eight"}),
        ("unet.json", {"_class_name": "UNet2DModel", "sample_size": 8}),
    ):
        (root / name).write_text(json.dumps(content))
    (root / "broken.json").write_text("{")


def _save(unet: UNet2DModel, folder: Path, **scheduler: object) -> None:
    DDPMPipeline(unet, DDPMScheduler(20, **scheduler)).save_pretrained(folder)


def _save_damaged(root: Path) -> None:
    """Copies of the model, each with one thing wrong."""

    def copy(name: str) -> Path:
        return shutil.copytree(root / "model", root / name)

    (copy("index_no_json") / "model_index.json").write_text("{")
    (copy("index_list") / "model_index.json").write_text("[]")
    (copy("index_empty") / "model_index.json").write_text("{}")
    other = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DModel"]}
    (copy("index_other") / "model_index.json").write_text(json.dumps(other))
    (copy("index_binary") / "model_index.json").write_bytes(b"\xff\xfe\x00")
    shutil.rmtree(copy("no_unet") / "unet")
    shutil.rmtree(copy("no_scheduler") / "scheduler")
    (copy("no_weights") / WEIGHTS).unlink()
    (copy("no_config") / "unet/config.json").unlink()
    (copy("config_no_json") / "unet/config.json").write_text("{")
    (copy("config_list") / "unet/config.json").write_text("[1]")
    config = json.loads((root / "model/unet/config.json").read_text())
    wider = config | {"block_out_channels": [16, 32]}
    (copy("config_other") / "unet/config.json").write_text(json.dumps(wider))
    unknown = config | {"down_block_types": ["NoBlock", "NoBlock"]}
    (copy("config_unknown") / "unet/config.json").write_text(json.dumps(unknown))
    (copy("scheduler_no_json") / "scheduler/scheduler_config.json").write_text("{")
    scheduler = json.loads((root / "model/scheduler/scheduler_config.json").read_text())
    for name, change in (
        ("scheduler_T", {"num_train_timesteps": -1}),
        ("scheduler_beta", {"beta_end": 7.0}),
        ("scheduler_type", {"prediction_type": "noise"}),
        ("scheduler_spacing", {"timestep_spacing": "even"}),
    ):
        path = copy(name) / "scheduler/scheduler_config.json"
        path.write_text(json.dumps(scheduler | change))
    weights = (root / "model" / WEIGHTS).read_bytes()
    (copy("weights_cut") / WEIGHTS).write_bytes(weights[: len(weights) // 2])
    (copy("weights_empty") / WEIGHTS).write_bytes(b"")
    (copy("weights_text") / WEIGHTS).write_text("<html>not found</html>")
    header = struct.pack("<Q", 2**40)
    (copy("weights_header") / WEIGHTS).write_bytes(header + weights[8:])
    tensors = load_file(root / "model" / WEIGHTS)
    nan = {name: torch.full_like(value, torch.nan) for name, value in tensors.items()}
    save_file(nan, copy("weights_nan") / WEIGHTS)
    save_file(dict(list(tensors.items())[:5]), copy("weights_some") / WEIGHTS)


def _save_images(root: Path) -> None:
    """Folders of pictures."""
    random = np.random.default_rng(0)

    def save(folder: str, side: int, count: int = 12, channels: int = 1) -> None:
        (root / folder).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 256, (side, side, channels), dtype=np.uint8)
            Image.fromarray(pixels.squeeze()).save(root / folder / f"{i}.png")

    save("photos", 8)
    save("large", 16)
    save("rgb", 8, channels=3)
    save("one", 8, count=1)
    save("animals/cat", 8, count=6)
    save("animals/dog", 8, count=6)
    save("many/a", 8, count=2)
    for name in "bcdef":
        shutil.copytree(root / "many/a", root / "many" / name)
    (root / "broken").mkdir()
    for i in range(3):
        (root / "broken" / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")


def _save_arrays(root: Path) -> None:
    """Files of arrays."""
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (12, 8, 8), dtype=np.uint8)
    floats = images / np.float32(255)
    np.save(root / "images.npy", images)
    np.save(root / "floats.npy", floats)
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        wrong = floats.copy()
        wrong[3] = value
        np.save(root / f"{name}.npy", wrong)
    np.save(root / "none.npy", images[:0])
    np.save(root / "flat.npy", images.reshape(-1))
    np.save(root / "deep.npy", images.reshape(12, 1, 8, 8, 1, 1))
    np.save(root / "channels.npy", np.zeros((4, 8, 8, 7), np.uint8))
    np.save(root / "words.npy", np.array(["a", "b"]))
    np.save(root / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.save(root / "complex.npy", floats.astype(np.complex64))
    content = (root / "images.npy").read_bytes()
    (root / "cut.npy").write_bytes(content[: len(content) // 2])
    (root / "text.npy").write_text("text")
    (root / "void.npy").write_bytes(b"")
    np.savez(root / "labelled.npz", images=images, labels=np.arange(12) % 3)
    np.savez(root / "few_labels.npz", images=images, labels=np.arange(5))
    np.savez(root / "odd_labels.npz", images=images, labels=np.linspace(0, 1, 12))
    np.savez(root / "negative.npz", images=images, labels=np.arange(12) - 6)
    np.savez(root / "five.npz", images=images, labels=np.arange(12) % 6)
    np.savez(root / "names.npz", a=images, b=images)
    content = (root / "labelled.npz").read_bytes()
    (root / "cut.npz").write_bytes(content[: len(content) // 2])
    (root / "cut.parquet").write_bytes(b"PAR1 nothing more")
    (root / "cut.tar").write_bytes(b"nothing")


def _save_features(root: Path) -> None:
    """Feature extractors, one of which works."""
    works = WORKING_FEATURES
    for name, text in (
        ("means", works),
        ("syntax", "def feature_extractor(:\n"),
        ("nothing", "x = 1\n"),
        ("raises", "raise RuntimeError('two\\nlines')\n"),
        ("number", "def feature_extractor():\n    return 3\n"),
        ("shape", works.replace("return torch.stack([values.mean(1), values.std(1)], 1)",
                                "return values.mean()")),
        ("nan", works.replace("values.mean(1)", "values.mean(1) * float('nan')")),
    ):  # fmt: skip
        (root / f"{name}.py").write_text(text)
    config = SmallFeaturesConfig(size=8, widths=(4, 4, 4), dim=5, num_classes=2)
    SmallFeatures(config).save_pretrained(root / "features")
    for name in ("features_cut", "features_none"):
        shutil.copytree(root / "features", root / name)
    weights = root / "features_cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    (root / "features_none" / "config.json").unlink()
    big = SmallFeaturesConfig(size=28, widths=(4, 4, 4), dim=5, num_classes=2)
    SmallFeatures(big).save_pretrained(root / "features_28")
