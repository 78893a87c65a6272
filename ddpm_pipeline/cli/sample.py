"""``ddpm sample``: images from a saved model, as one grid, a file each, or an array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ddpm_pipeline.cli.arguments import parse
from ddpm_pipeline.common import process_state
from ddpm_pipeline.data import image_grid
from ddpm_pipeline.pipelines import SampleConfig, load_image_sampler, sample_images

__all__ = ["SampleArguments", "run"]


@dataclass(frozen=True, kw_only=True)
class SampleArguments(SampleConfig):
    """Draw images from a saved model; `--model` may be left out before its name."""

    output: str = "samples.png"
    """A picture, for a grid of all images; a directory, or a .npz file."""
    overwrite: bool = False
    """Replace a picture that is there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_grid and not self.overwrite and Path(self.output).exists():
            raise ValueError(f"output {self.output!r} exists; pass overwrite to replace it")

    @property
    def is_grid(self) -> bool:
        """Whether the output is one picture."""
        return Image.registered_extensions().get(Path(self.output).suffix.lower()) in Image.SAVE


def run(argv: Sequence[str]) -> None:
    """Draw images as the arguments say, and print where they are."""
    if argv and not argv[0].startswith("-"):
        argv = ["--model", *argv]
    arguments = parse(SampleArguments, argv, prog="ddpm sample")
    print((_draw_grid if arguments.is_grid else sample_images)(arguments))  # noqa: T201


def _draw_grid(arguments: SampleArguments) -> Path:
    path = Path(arguments.output)
    sampler = load_image_sampler(arguments, process_state().device)
    path.parent.mkdir(parents=True, exist_ok=True)
    image_grid(sampler(range(arguments.num_images))).save(path)
    return path
