"""The model of ``--guidance_model``: looked for, and made of a checkpoint where it is one.

on_hub = guide_not_here(arguments.guidance_model)
with guided_by_saved(arguments) as ready:        its guidance_model is a model's folder
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TypeVar

from ddpm_pipeline.cli.inputs import HubName, not_here
from ddpm_pipeline.training import has_checkpoints_only

__all__ = ["guide_not_here", "guided_by_saved"]


T = TypeVar("T")


def guide_not_here(guidance_model: str | None) -> list[HubName]:
    """Refuse a guide that is neither a model nor a checkpoint here; list one that may be online.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: As ``not_here``; names the option.
    """
    if guidance_model is None or has_checkpoints_only(guidance_model):
        return []
    try:
        return not_here(model=guidance_model)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise type(error)(f"guidance_model: {error}") from None


@contextmanager
def guided_by_saved(arguments: T) -> Iterator[T]:
    """Put the model of a checkpoint in the place of one that is given as guidance_model."""
    given = arguments.guidance_model
    if given is None or not has_checkpoints_only(given):
        yield arguments
        return
    from ddpm_pipeline.training import export_checkpoint

    with TemporaryDirectory() as folder:
        export_checkpoint(given, folder)
        # Other options were checked, and a picture to be replaced is still there.
        more = {"overwrite": True} if hasattr(arguments, "overwrite") else {}
        yield replace(arguments, guidance_model=folder, **more)
