"""The ``ddpm`` command: a table of subcommands, a file for each, and errors in one line."""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.cli.commands import main

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "commands": "main",
    },
)
