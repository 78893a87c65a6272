"""From nothing to a trained model of colour pictures with classes, on two CPU cores.

    python examples/demo_colour.py --output_dir runs/demo-colour

Trains on Google's Noto emoji at 32 x 32 pixels, in the nine categories of ``emoji.json``. They
come from the npm package ``emoji-datasource-google`` 16.0.0 (74 MB; the images are under the
Apache License 2.0), which ``npm pack`` fetches unless --package names it. Then it calibrates the
model on images that were held out, and draws samples of every class, as they come. Run again, it
only draws; after an interruption, it goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from demo import draw_classes, in_rows, label_rows, print_written

from ddpm_pipeline import DDPMPipeline, TrainingConfig, train
from ddpm_pipeline.calibration import CalibrateConfig, calibrate_saved_model
from ddpm_pipeline.networks import facts_of

PACKAGE = "emoji-datasource-google@16.0.0"
IMAGES = Path("img", "google", "64")
LEFT_OUT = "Component"  # five swatches of skin tones, which are no emoji of their own
COLUMNS = 12
LEAST_SIDE = 512  # of the picture
STEPS = 50  # where the calibration names no number


def fetch_package(folder: Path) -> Path:
    """Fetch the package's .tgz file with npm, unless it is there; npm checks what it received."""
    if found := sorted(folder.glob("*.tgz")):
        return found[0]
    if shutil.which("npm") is None:
        raise ValueError(
            f"npm is not installed, which fetches {PACKAGE}: give it as --package, a .tgz file "
            "or the folder that is in it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    print(f"npm pack {PACKAGE}: 74 MB", flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        command = ["npm", "pack", "--silent", PACKAGE, "--pack-destination", aside]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            reason = " ".join(done.stderr.split()) or "no reason given"
            raise OSError(f"npm pack {PACKAGE} failed: {reason}")
        (file,) = Path(aside).glob("*.tgz")
        return file.rename(folder / file.name)


def save_emoji(package: Path, data_dir: Path, skin_tones: bool) -> None:
    """Copy the images of a package into a folder for each category.

    Arguments:
        package: Its .tgz file, or the folder that is in it, with emoji.json and img/google/64.
        data_dir: Where to; left as it is if it is there.
        skin_tones: Take the variants of each emoji too.
    Raises:
        ValueError: If the package is another.
    """
    if data_dir.exists():
        return
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data_dir.parent) as aside:
        source = package if package.is_dir() else unpack(package, Path(aside, "unpacked"))
        listed, images = source / "emoji.json", source / IMAGES
        if not (listed.is_file() and images.is_dir()):
            raise ValueError(
                f"--package must be {PACKAGE} of npm, with emoji.json and {IMAGES}, got {package}"
            )
        for emoji in json.loads(listed.read_text(encoding="utf-8")):
            if emoji["category"] == LEFT_OUT:
                continue
            category = Path(aside, "data", emoji["category"])
            category.mkdir(parents=True, exist_ok=True)
            variants = emoji.get("skin_variations", {}).values() if skin_tones else ()
            for each in (emoji, *variants):
                shutil.copy(images / each["image"], category)
        Path(aside, "data").rename(data_dir)  # whole, or not there


def unpack(file: Path, folder: Path) -> Path:
    """Unpack what is needed of a package, and give the folder that holds it."""
    wanted = ("package/emoji.json", f"package/{IMAGES.as_posix()}/")
    try:
        with tarfile.open(file) as archive:
            members = [m for m in archive if m.isfile() and m.name.startswith(wanted)]
            archive.extractall(folder, members, filter="data")
    except tarfile.TarError as error:
        raise ValueError(
            f"--package must be a folder or a .tgz file, got {file}: {error}"
        ) from None
    return folder / "package"


def save_picture(images: np.ndarray, names: list[str], title: str, path: Path) -> None:
    """Draw a row for each class, every image at a whole multiple of its size."""
    mpl.use("Agg")
    picture = in_rows(images, len(names), 255)
    height, width = picture.shape[:2]
    zoom = -(-LEAST_SIDE // min(height, width))
    inches = (width * zoom / 100, height * zoom / 100)
    left, top = 1.4, 0.3  # for the names, and for the title
    whole = (inches[0] + left, inches[1] + top)
    figure = plt.figure(figsize=whole, dpi=100)
    axis = figure.add_axes((left / whole[0], 0, inches[0] / whole[0], inches[1] / whole[1]))
    axis.imshow(picture, interpolation="nearest")
    axis.set_title(title, fontsize=11)
    label_rows(axis, [name.replace(" & ", "\n& ") for name in names], height / len(names))
    axis.spines[:].set_visible(False)
    figure.savefig(path)
    plt.close(figure)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--output_dir", type=Path, default=Path("runs/demo-colour"))
    parser.add_argument("--package", type=Path, help=f"{PACKAGE}: its folder, or its .tgz file")
    parser.add_argument("--background", default="white", help="below transparent pixels")
    parser.add_argument("--skin_tones", action="store_true", help="1,875 variants more")
    parser.add_argument("--max_train_steps", type=int, default=700)
    parser.add_argument("--num_threads", type=int, help="of training; chosen unless given")
    parser.add_argument("--num_inference_steps", type=int, help="as calibrated unless given")
    parser.add_argument("--guidance_scale", type=float, default=1.0)
    options = parser.parse_args()
    if options.package is not None and not options.package.exists():
        raise ValueError(f"--package {options.package} does not exist")
    return options


def train_on(data_dir: Path, options: argparse.Namespace) -> tuple[Path, int]:
    """Train on the emoji and calibrate on those held out; give the model and its updates."""
    reading = {"cache_dir": str(options.output_dir / "cache")}
    result = train(
        TrainingConfig(
            train_data_dir=str(data_dir),
            resolution=32,
            background=options.background,
            class_conditional=True,
            validation_size=0.05,
            validation_steps=200,
            train_batch_size=32,
            optimizer="muon",
            max_train_steps=options.max_train_steps,
            checkpointing_steps=100,
            num_threads=options.num_threads,
            output_dir=str(options.output_dir / "model"),
            **reading,
        )
    )
    if not result.finished:
        sys.exit("demo: stopped; the same command goes on from there")
    model_dir = Path(result.output_dir)
    if not (model_dir / "calibration.json").exists():
        calibrate_saved_model(
            CalibrateConfig(
                model=str(model_dir),
                data=str(data_dir),
                split="validation",
                num_forwards=5000,
                **reading,
            )
        )
    return model_dir, result.global_step


def main() -> None:
    """Fetch, train, calibrate, draw, and say what was written."""
    options = parse_options()
    data_dir = options.output_dir / "data"
    if data_dir.exists():
        print(f"The pictures in {data_dir} are taken as they are")
    else:
        package = options.package or fetch_package(options.output_dir)
        save_emoji(package, data_dir, options.skin_tones)
    model_dir, num_updates = train_on(data_dir, options)
    pipe = DDPMPipeline.from_pretrained(model_dir)
    names = list(facts_of(pipe.unet).class_names)
    steps = options.num_inference_steps or pipe.scheduler.solver.num_inference_steps or STEPS
    samples = draw_classes(pipe, len(names), COLUMNS, steps, options.guidance_scale)
    figure_path = options.output_dir / "samples.png"
    title = f"{num_updates} updates, {steps} steps, the first {COLUMNS} of each class"
    save_picture(samples, names, title, figure_path)
    print_written(options.output_dir / "model", figure_path)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"demo: {error}")
