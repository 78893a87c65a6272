"""The package works from a folder on the path, where no installed package goes by its name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.command_lines import tiny_options
from helpers.paths import PACKAGE
from helpers.wrong_calls import WORKING_FEATURES

import ddpm_pipeline

if TYPE_CHECKING:
    from helpers.hubs import Hub

CHECKOUT = PACKAGE.parent
RUN = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
from ddpm_pipeline.cli import main

try:
    sys.exit("installed: " + version("ddpm_pipeline"))
except PackageNotFoundError:
    pass
for argv in json.loads(sys.argv[1]):
    if main(argv) != 0:
        sys.exit(f"failed: {argv}")
"""


def other_packages(folder: Path) -> Path:
    """Links to all that is installed but this package, its metadata and what finds it."""
    for place in (Path(name) for name in sys.path if name.endswith("-packages")):
        for entry in place.iterdir():
            is_ours = "ddpm_pipeline" in entry.name or entry.suffix == ".pth"
            if not is_ours and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    return folder


def test_every_command_works_from_a_folder(tmp_path: Path, hub: Hub) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    model, images = str(tmp_path / "run"), str(tmp_path / "images.npy")
    (tmp_path / "means.py").write_text(WORKING_FEATURES)
    few = ("--num_images", "20", "--num_inference_steps", "2")
    argvs = [
        ["train", *tiny_options(tmp_path)],
        ["sample", model, "--output", str(tmp_path / "drawn"), *few],
        ["bound", model, "--data", images],
        ["evaluate", model, "--data", images, "--features", str(tmp_path / "means.py"), *few],
        ["push", model, "alice/digits"],
    ]
    run = subprocess.run(
        [sys.executable, "-S", "-c", RUN, json.dumps(argvs)],  # -S: no site-packages, no .pth
        env=hub.environment() | {"PYTHONPATH": f"{CHECKOUT}:{other_packages(packages)}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for name in ("training_record", "bound", "evaluation"):
        versions = json.loads((tmp_path / "run" / f"{name}.json").read_text())["versions"]
        assert {"torch", "diffusers"} <= versions.keys()
    record = json.loads((tmp_path / "run" / "training_record.json").read_text())
    assert record["versions"]["ddpm_pipeline"] == ddpm_pipeline.__version__
    assert b"ddpm_pipeline" in hub.content("alice/digits", "README.md")
