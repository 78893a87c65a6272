"""``ddpm sample``: images from a saved model, as one grid, a file each, or an array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ddpm_pipeline.cli.arguments import naming_options, parse
from ddpm_pipeline.cli.guiding import guide_not_here, guided_by_saved
from ddpm_pipeline.cli.inputs import ask_hub, not_here
from ddpm_pipeline.cli.printing import say
from ddpm_pipeline.common import check_output_file, check_output_folder, printable
from ddpm_pipeline.pipelines import (
    SampleConfig,
    check_not_foreign,
    check_saved_classes,
    check_saved_condition,
    check_saved_steps,
    npz_manifest,
)
from ddpm_pipeline.training import has_checkpoints_only

__all__ = ["PICTURE_SUFFIXES", "SampleArguments", "run"]


PICTURE_SUFFIXES = """
    .apng .avif .avifs .blp .bmp .bufr .bw .dds .dib .emf .eps .gif .grib .h5 .hdf .icb .icns .ico
    .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .msp .palm .pbm .pcx .pdf .pfm
    .pgm .png .pnm .ppm .ps .qoi .rgb .rgba .sgi .tga .tif .tiff .vda .vst .webp .wmf .xbm
"""
"""Endings of the pictures that Pillow writes, which is not imported to tell."""


@dataclass(frozen=True, kw_only=True)
class SampleArguments(SampleConfig):
    """Draw images from a saved model; `--model` may be left out before its name.

    Of a training run that has not saved its model yet the newest checkpoint is sampled.
    """

    output: str = "samples.png"
    """A picture, for a grid of all images; a directory, or a .npz file."""
    overwrite: bool = False
    """Replace a picture that is there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_grid and not self.overwrite and Path(self.output).is_file():
            raise ValueError(f"output {self.output!r} exists; overwrite=True replaces it")

    @property
    def is_grid(self) -> bool:
        """Tell whether the output is one picture."""
        return Path(self.output).suffix.lower() in PICTURE_SUFFIXES.split()


def run(argv: Sequence[str]) -> None:
    """Draw images as the arguments say, and print where they are."""
    with naming_options(SampleArguments):
        arguments = parse(SampleArguments, argv, prog="ddpm sample", positional=("model",))
        is_unfinished = has_checkpoints_only(arguments.model)
        on_hub = [] if is_unfinished else not_here(model=arguments.model)
        on_hub += guide_not_here(arguments.guidance_model)
        _check_output(arguments)
        if not is_unfinished:
            _check_model(arguments)
        ask_hub(on_hub)
        with (
            _model_of_checkpoint(arguments) if is_unfinished else nullcontext(arguments) as found,
            guided_by_saved(found) as ready,
        ):
            path = (_draw_grid if arguments.is_grid else _sample_images)(ready)
        say(path)


@contextmanager
def _model_of_checkpoint(arguments: SampleArguments) -> Iterator[SampleArguments]:
    """Put the model of the newest checkpoint in the place of a run that has none, and say so."""
    from ddpm_pipeline.training import export_checkpoint

    with TemporaryDirectory() as folder:
        found = export_checkpoint(arguments.model, folder)
        told = printable(f"there is no saved model yet: sampling from {found}")
        say(told, to_errors=True)
        # The arguments were checked, and a picture to be replaced is still there.
        yield replace(arguments, model=folder, overwrite=True)


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


def _check_model(arguments: SampleArguments) -> None:
    """Refuse steps and classes that the model has not, as far as its configs are here."""
    check_saved_steps(arguments.model, arguments.num_inference_steps)
    check_saved_classes(arguments.model, arguments.class_labels, arguments.null_guidance)
    check_saved_condition(arguments.model, arguments.condition, arguments.condition_numbers)


def _draw_grid(arguments: SampleArguments) -> Path:
    """Draw all images into one picture."""
    from ddpm_pipeline.common import process_state
    from ddpm_pipeline.pipelines import draw_grid, load_image_sampler

    path = Path(arguments.output)
    draw_grid(load_image_sampler(arguments, process_state().device), arguments.num_images, path)
    return path


def _sample_images(arguments: SampleArguments) -> Path:
    """Draw every image into a file of its own, or all into one array."""
    from ddpm_pipeline.pipelines import sample_images

    return sample_images(arguments)
