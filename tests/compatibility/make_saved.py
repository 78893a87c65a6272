"""Make ``saved/``: run it with the code of b3da084 and no other; README.md says how.

What is half done is stopped where the run itself says, so that it is the same each time: a
training run by SIGTERM during its 7th update, everything else by KeyboardInterrupt.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import saved_recipes as recipes
import torch
from ddpm_pipeline.features import SmallFeatures, SmallFeaturesConfig, load_features
from diffusers import UNet2DModel
from PIL import Image
from saved_recipes import SAVED, UNET

from ddpm_pipeline import DDPMPipeline, DDPMScheduler, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = 10
CLASSES = ("dots", "rings")
TEMPORARY = ("*.lock", ".lock", "*.png.aside")


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "saved"
        folder.mkdir()
        os.environ["DDPM_PIPELINE_CACHE"] = str(Path(name) / "cache")
        make_all(folder)
        expected = go_on(folder, Path(name))
        shutil.rmtree(SAVED, ignore_errors=True)
        shutil.copytree(folder, SAVED, ignore=shutil.ignore_patterns(*TEMPORARY))
        for run in recipes.RUNS:
            shutil.copy(Path(name) / f"{run}.safetensors", SAVED / f"{run}_final.safetensors")
    text = json.dumps(expected, indent=1) + "\n"
    (SAVED / "expected.json").write_text(text, encoding="utf-8")


# What is half done, and what is whole.


def make_all(folder: Path) -> None:
    make_images(folder)
    make_models(folder)
    recipes.open_photos(folder, folder / "image_cache")
    torch.manual_seed(5)
    network = SmallFeatures(SmallFeaturesConfig(size=8, widths=(4, 4, 4), dim=5, num_classes=2))
    network.save_pretrained(folder / "features")
    for name in recipes.RUNS:
        stop_training(folder, name)
    (folder / "half_done").mkdir()
    torch.manual_seed(7)
    with interrupted():
        recipes.measure_bound(folder, stop_after=2)
    assert examples(folder / "half_done" / "bound.state") == 8
    with interrupted():
        recipes.measure_calibration(folder, stop_after=60)
    for name, call in (("bound", 20), ("calibrate", 60)):
        stop_command(folder, name, call)
    assert examples(folder / "half_done" / "command_bound.state") == 16
    shutil.rmtree(folder / "cache")


def make_images(folder: Path) -> None:
    """A .npy file, and a folder of image files with a folder for each class."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:8, :8]
    centres = generator.uniform(1, 6, (40, 2, 1, 1))
    distances = np.sqrt((x - centres[:, 0]) ** 2 + (y - centres[:, 1]) ** 2)
    dots, rings = (np.exp(-((distances - radius) ** 2) / 2) for radius in (0, 3))
    np.save(folder / "images.npy", (255 * dots).astype(np.uint8))
    for name, shapes in zip(CLASSES, (dots, rings), strict=True):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(8):
            image = Image.fromarray((255 * shapes[i]).astype(np.uint8))
            image.save(folder / "photos" / name / f"{i}.png")
    of_classes = {**UNET, "num_class_embeds": len(CLASSES) + 1}
    for name, config in (("unet", UNET), ("unet_of_classes", of_classes)):
        (folder / f"{name}.json").write_text(json.dumps(config, indent=1) + "\n")


def make_models(folder: Path) -> None:
    """One as it was saved, and one of classes as ``ddpm calibrate`` left it."""
    options = {"plain": {}, "calibrated": {"num_class_embeds": len(CLASSES) + 1}}
    for name, more in options.items():
        torch.manual_seed(1)
        scheduler = DDPMScheduler(num_train_timesteps=T, timestep_spacing="trailing")
        DDPMPipeline(UNet2DModel(**UNET, **more), scheduler).save_pretrained(folder / name)
    arguments = ["--data", str(folder / "photos"), "--timestep_spacing", "optimal_samples"]
    code = recipes.ddpm(
        "calibrate", str(folder / "calibrated"), *arguments, "--num_inference_steps", "5"
    )
    assert code == 0
    for picture in (folder / "calibrated").glob("*.png"):
        picture.unlink()


def stop_training(folder: Path, name: str) -> None:
    config = recipes.training_config(folder, name)
    with at_network_call(7, lambda: os.kill(os.getpid(), signal.SIGTERM), training=True):
        result = train(config)
    assert (result.finished, result.global_step) == (False, 7)


def stop_command(folder: Path, name: str, call: int) -> None:
    """Leave the state file of a command that is interrupted at a call of the network."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with at_network_call(call, interrupt, training=False, pause=0.05):
        assert recipes.command(folder, name) == 130
    state = folder / "plain" / recipes.STATES[name]
    state.rename(folder / "half_done" / f"command_{state.name}")


@contextmanager
def at_network_call(
    number: int, action: Callable[[], None], *, training: bool, pause: float = 0
) -> Iterator[None]:
    """Do something at the n-th call of a UNet in this mode, with pauses before all of them."""
    calls = 0

    def count(module: torch.nn.Module, _: object) -> None:
        nonlocal calls
        if isinstance(module, UNet2DModel) and module.training == training:
            calls += 1
            time.sleep(pause)
            if calls == number:
                action()

    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        return
    raise AssertionError("it ended")


def examples(state: Path) -> int:
    return len(torch.load(state, weights_only=True)["totals"]["prior"])


# Where it goes.


def go_on(folder: Path, scratch: Path) -> dict[str, Any]:
    """What all of it comes to here, each in a copy of the folder."""
    copies = iter(range(100))

    def copy() -> Path:
        return Path(shutil.copytree(folder, scratch / str(next(copies))))

    runs = {name: copy() for name in recipes.RUNS}
    expected = {
        "machine": recipes.machine(),
        "plain": recipes.drawn(folder, "plain"),
        "calibrated": recipes.drawn(
            folder, "calibrated", class_labels=[0, 1, 0, 1], guidance_scale=2.0
        ),
        "photos": opened(folder),
        "features": features(folder),
        **{name: recipes.go_on_training(runs[name], name) for name in runs},
        "bound": recipes.measure_bound(copy()),
        "calibration": recipes.measure_calibration(copy()),
        **{
            f"command_{name}": recipes.go_on_with_command(copy(), name)
            for name in recipes.COMMANDS
        },
    }
    expected["calibration_sha256"] = recipes.json_hash(expected["calibration"])
    for name, run in runs.items():
        weights = run / name / "unet" / "diffusion_pytorch_model.safetensors"
        shutil.copy(weights, scratch / f"{name}.safetensors")
        (whole := copy() / name).rename(whole.with_name("stopped"))
        assert recipes.go_on_training(whole.parent, name) == expected[name]
    return expected


def opened(folder: Path) -> dict[str, Any]:
    data = recipes.open_photos(folder, folder / "image_cache")
    return {
        "fingerprint": data.fingerprint,
        "labels": data.labels.tolist(),
        "pixels": data.values.numpy().tobytes().hex(),
    }


def features(folder: Path) -> dict[str, Any]:
    extractor = load_features(folder / "features")
    images = torch.from_numpy(np.load(folder / "images.npy")[:2, None])
    return {"fingerprint": extractor.fingerprint, "values": extractor(images).tolist()}


if __name__ == "__main__":
    main()
