"""Bring what a bare GPU machine lacks into two folders that git ignores: ``make gpu-prepare``.

``.whl`` gets the wheels of LACKING for Python 3.12 on Linux, at the versions of constraints.txt;
``.gpu`` gets the IDX files of Fashion-MNIST, if this machine has them. Copy the checkout with both
to the machine and run ``make gpu`` there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from gpu.machine import ROOT, fashion_mnist

LACKING = """
    datasets diffusers dill docstring_parser httpcore2 httpx2 huggingface_hub importlib_metadata
    lazy-importer multiprocess tokenizers transformers truststore typeguard tyro
"""
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux1_x86_64")


def download_command(folder: Path) -> list[str]:
    """pip's command that fills the folder, whatever Python and system this is."""
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    wheels = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", *platforms]
    target = ["--python-version", PYTHON, "--dest", str(folder)]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    words = [sys.executable, "-m", "pip", "download", "--quiet", *wheels, *target, *constraints]
    return [*words, *LACKING.split()]


def main() -> None:
    wheels, data = ROOT / ".whl", ROOT / ".gpu"
    subprocess.run(download_command(wheels), check=True)
    print(f"{len(list(wheels.glob('*.whl')))} wheels in {wheels.name}")
    source = fashion_mnist()
    if source is None:
        print("no Fashion-MNIST here: random images will take its place")
        return
    data.mkdir(exist_ok=True)
    for file in Path(source).glob("*ubyte*"):
        if not (data / file.name).exists():
            shutil.copy(file, data)
    print(f"Fashion-MNIST in {data.name}")


if __name__ == "__main__":
    main()
