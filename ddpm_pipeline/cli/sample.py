"""``ddpm sample``: images from a saved model, as one grid, a file each, or an array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpm_pipeline.cli.arguments import parse
from ddpm_pipeline.cli.inputs import require_model
from ddpm_pipeline.common import check_output_file, check_output_folder
from ddpm_pipeline.pipelines import SampleConfig, check_not_foreign, npz_manifest

__all__ = ["PICTURE_SUFFIXES", "SampleArguments", "run"]


PICTURE_SUFFIXES = """
    .apng .avif .avifs .blp .bmp .bufr .bw .dds .dib .emf .eps .gif .grib .h5 .hdf .icb .icns .ico
    .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .msp .palm .pbm .pcx .pdf .pfm
    .pgm .png .pnm .ppm .ps .qoi .rgb .rgba .sgi .tga .tif .tiff .vda .vst .webp .wmf .xbm
"""
"""Endings of the pictures that Pillow writes, which is not imported to tell."""


@dataclass(frozen=True, kw_only=True)
class SampleArguments(SampleConfig):
    """Draw images from a saved model; `--model` may be left out before its name."""

    output: str = "samples.png"
    """A picture, for a grid of all images; a directory, or a .npz file."""
    overwrite: bool = False
    """Replace a picture that is there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_grid and not self.overwrite and Path(self.output).is_file():
            raise ValueError(f"output {self.output!r} exists; pass overwrite to replace it")

    @property
    def is_grid(self) -> bool:
        """Tell whether the output is one picture."""
        return Path(self.output).suffix.lower() in PICTURE_SUFFIXES.split()


def run(argv: Sequence[str]) -> None:
    """Draw images as the arguments say, and print where they are."""
    arguments = parse(SampleArguments, argv, prog="ddpm sample", positional=("model",))
    require_model(arguments.model)
    _check_output(arguments)

    from ddpm_pipeline.pipelines import sample_images

    print((_draw_grid if arguments.is_grid else sample_images)(arguments))  # noqa: T201


def _check_output(arguments: SampleArguments) -> None:
    """Refuse an output that cannot be written, or that holds something else."""
    path = Path(arguments.output)
    is_npz = arguments.resolved_format == "npz"
    if arguments.is_grid or is_npz:
        check_output_file("output", path)
    else:
        check_output_folder("output", path)
        check_not_foreign(path)
    if is_npz and path.exists():
        npz_manifest(path)


def _draw_grid(arguments: SampleArguments) -> Path:
    """Draw all images into one picture."""
    from ddpm_pipeline.common import process_state
    from ddpm_pipeline.data import image_grid
    from ddpm_pipeline.pipelines import load_image_sampler

    path = Path(arguments.output)
    sampler = load_image_sampler(arguments, process_state().device)
    path.parent.mkdir(parents=True, exist_ok=True)
    image_grid(sampler(range(arguments.num_images))).save(path)
    return path
