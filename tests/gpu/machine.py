"""The machine: what it is, what it lacks, and where that lies in the checkout.

A bare one has torch with CUDA and no package index. Two folders in the project's root, kept out of
git, bring the rest: ``.whl`` has wheels, which are put on the path of this run alone, and ``.gpu``
has the IDX files of Fashion-MNIST.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["commit", "describe", "environment", "fashion_mnist", "needed_wheels"]

ROOT = Path(__file__).parents[2]
HIDDEN_DEVICES = "DDPM_TESTS_DEVICES"
"""Where tests/conftest.py keeps CUDA_VISIBLE_DEVICES, which it empties."""
_PACKAGES = """
    torch diffusers accelerate transformers huggingface_hub safetensors numpy pillow datasets
    torchmetrics scipy scikit-learn matplotlib hypothesis pytest pyarrow anyio idna triton
"""
_FASHION_MNIST = (ROOT / ".gpu", Path("/usr/share/datasets/fashion-mnist"))


def needed_wheels() -> list[Path]:
    """The wheels of the checkout, where diffusers is not installed."""
    is_bare = importlib.util.find_spec("diffusers") is None
    return sorted((ROOT / ".whl").glob("*.whl")) if is_bare else []


def environment(folder: Path, *, rehearse: bool, wheels: Sequence[Path] = ()) -> dict[str, str]:
    """The environment of processes that import the package from the checkout.

    Arguments:
        folder: Where wheels are unpacked.
        rehearse: Whether the process has one thread and no GPU.
        wheels: What goes before all that is installed.
    """
    tests = ROOT / "tests"
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "wheels")
    own = [folder / "wheels"] if wheels else []
    paths = [ROOT, tests, tests / "benchmarks", *own, os.environ.get("PYTHONPATH", "")]
    kept = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    if rehearse:
        kept |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    elif HIDDEN_DEVICES in kept:
        kept["CUDA_VISIBLE_DEVICES"] = kept[HIDDEN_DEVICES]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(str(path) for path in paths if str(path)),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }


def fashion_mnist() -> str | None:
    """The folder of its IDX files, if there is one."""
    found = (folder for folder in _FASHION_MNIST if any(folder.glob("*ubyte*")))
    return next(map(str, found), None)


def commit() -> str | None:
    """Of the checkout, with + where files differ from it; None where git does not know."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def describe(device: torch.device) -> dict[str, Any]:
    """The device, its driver, and the versions of all that takes part."""
    import torch

    gpu: dict[str, Any] = {"gpu": None, "driver": None}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        gpu = {"gpu": properties.name, "driver": _driver()}
        gpu["memory_GiB"] = round(properties.total_memory / 2**30, 1)
        gpu["capability"] = f"{properties.major}.{properties.minor}"
    versions = {name: _version(name) for name in _PACKAGES.split()}
    versions |= {"python": platform.python_version(), "cuda": torch.version.cuda}
    versions["cudnn"] = torch.backends.cudnn.version()
    return {**gpu, "cores": len(os.sched_getaffinity(0)), "versions": versions}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return getattr(sys.modules.get(name), "__version__", None)


def _driver() -> str | None:
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()[0].strip()
