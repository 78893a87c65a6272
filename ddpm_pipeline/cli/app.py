"""``ddpm app``: a page in the browser to try models on."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ddpm_pipeline.app import AppConfig
from ddpm_pipeline.cli.arguments import naming_options, parse
from ddpm_pipeline.cli.inputs import ask_hub, not_here
from ddpm_pipeline.cli.printing import say
from ddpm_pipeline.training import has_checkpoints_only

__all__ = ["run"]


def run(argv: Sequence[str]) -> None:
    """Show the page, say where it is, and wait for Ctrl-C."""
    with naming_options(AppConfig):
        config = parse(AppConfig, _models_first(argv), prog="ddpm app")
        names = [model for model in config.models if not has_checkpoints_only(model)]
        ask_hub([found for name in names for found in not_here(model=name)])
        from ddpm_pipeline.app import serve

        end = serve(config)
    host = f"[{config.host}]" if ":" in config.host else config.host
    say(f"http://{host}:{config.port}, until Ctrl-C")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        end()


def _models_first(argv: Sequence[str]) -> Sequence[str]:
    """Put --models before the arguments that stand first without an option."""
    return ["--models", *argv] if argv and not argv[0].startswith("-") else argv
