"""Loading a pipeline from a folder or from the Hub: what is refused, and errors that say why.

diffusers reports most of what goes wrong as a model that is not cached; the reason is in the
cause. Weights are safetensors unless the caller asks for pickles, which are read as weights only;
code from a repository is never run, also if the caller asks.

    pipe = load(partial(from_pretrained, "alice/digits"), "alice/digits", {})
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pickle import UnpicklingError
from typing import Any, TypeVar

from huggingface_hub import HfApi
from safetensors import SafetensorError

from ddpm_pipeline.hub.errors import HubError, causes, explained, is_of_the_hub, is_transient
from ddpm_pipeline.hub.requests import PAUSES, REQUEST_TIMEOUT, time_limit

__all__ = ["load"]


T = TypeVar("T")

_QUICK = 5.0  # seconds; what took longer was tried several times already
_CODE_OPTIONS = ("trust_remote_code", "custom_pipeline")


def load(ask: Callable[[], T], name: str, options: Mapping[str, Any]) -> T:
    """Load a pipeline, and say in one line what went wrong if it cannot be.

    What the Hub failed at quickly and for a moment is tried once more.

    Arguments:
        ask: Loads it.
        name: A folder, or a repository on the Hub.
        options: What ``from_pretrained`` was called with; revision, token and use_safetensors
            are looked at.
    Returns:
        What was loaded.
    Raises:
        ValueError: If options ask for code from a repository, or the files here do not fit each
            other.
        HubError: If it cannot be loaded from the Hub, or only by running code.
        OSError: If its files here are damaged.
    """
    for option in _CODE_OPTIONS:
        if options.get(option):
            raise ValueError(
                f"{option} must be left out, got {options[option]!r}: code from a repository is "
                "never run; load such a model with diffusers' own DiffusionPipeline"
            )
    asked = {"revision": options.get("revision"), "token": options.get("token")}
    began = time.monotonic()
    with explained("load", name, **asked), time_limit(REQUEST_TIMEOUT):
        try:
            return ask()
        except Exception as error:
            if said := _refusal(error, name, options):
                raise HubError(said) from error
            if isinstance(error, ValueError) and _is_here(name):
                raise ValueError(f"cannot load {name!r}: {error}") from error
            if _is_damage(error, name):
                raise OSError(
                    f"cannot load {name!r}, which is damaged or of another kind: {error}; save "
                    "or download it again"
                ) from error
            if not is_transient(error) or time.monotonic() - began > _QUICK:
                raise
        time.sleep(PAUSES[0])
        return ask()


def _is_damage(error: Exception, name: str) -> bool:
    """Tell whether files in a folder here are at fault, of which errors speak in code's words."""
    kinds = (
        LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError, AssertionError,
        SafetensorError,
    )  # fmt: skip
    return _is_here(name) and (type(error) is OSError or isinstance(error, kinds))


def _is_here(name: str) -> bool:
    return os.path.isdir(name)  # noqa: PTH112 (a name is a path only if it is there)


def _refusal(error: Exception, name: str, options: Mapping[str, Any]) -> str | None:
    """Say why these files are not loaded; None if it is not for what is in them."""
    if any(isinstance(cause, UnpicklingError) for cause in causes(error)):
        return (
            f"cannot load {name!r}: its pickled weights hold more than weights, which could be "
            "code; they were not loaded and nothing in them was run"
        )
    if "trust_remote_code" in str(error):
        return f"cannot load {name!r}: it asks to run code of its own, which is never done"
    if is_of_the_hub(error) or not options.get("use_safetensors"):
        return None
    if _has_only_pickles(_files(name, options)):
        return (
            f"{name} holds only pickled weights (.bin), which can run code when loaded. "
            "If you trust them, convert them once: DDPMPipeline.from_pretrained("
            f"{name!r}, use_safetensors=False).save_pretrained(NEW_DIRECTORY)"
        )
    return None


def _files(name: str, options: Mapping[str, Any]) -> list[str]:
    """List the names of the files; none if the Hub does not tell."""
    if _is_here(name):
        return [file for _, _, files in os.walk(name) for file in files]
    if options.get("local_files_only"):
        return []
    try:
        api = HfApi(token=options.get("token"))
        return api.list_repo_files(name, revision=options.get("revision"))
    except Exception:  # noqa: BLE001 (the error that is being explained says it)
        return []


def _has_only_pickles(files: list[str]) -> bool:
    return any(f.endswith(".bin") for f in files) and not any(
        f.endswith(".safetensors") for f in files
    )
