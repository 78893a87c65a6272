"""``space_requirement``: by which line of requirements.txt a Space gets this package.

    space_requirement()          ddpm_pipeline[app] @ git+https://host/user/name@0f1e2d...

A name alone would be looked for on the package index, where it is whoever's that registered it. So
it stands there only if this very copy came from an index; a copy from a Git repository is named by
its address and commit. Where a copy came from is in the metadata of its installation.

Source: PEP 508 for the line, PEP 610 for the metadata.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement

__all__ = ["check_requirement", "space_requirement"]

_PACKAGE = Path(__file__).parents[1]
_ORIGIN = "direct_url.json"  # absent if it came from an index
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_EXAMPLE = f"{_PACKAGE.name}[app] @ git+https://HOST/USER/NAME@COMMIT"


def space_requirement(given: str | None = None) -> str:
    """Give the line by which a Space gets this package.

    Arguments:
        given: This one, if it is well formed.
    Returns:
        A requirement as of PEP 508, one line.
    Raises:
        ValueError: If none is given, and this copy came neither from an index nor from a Git
            repository at a public address; or if the given one is not a requirement.
    """
    if given is not None:
        check_requirement(given)
        return given.strip()
    if (installed := _installed()) is not None:
        origin = installed.read_text(_ORIGIN)
        if origin is None:
            return f"{_PACKAGE.name}[app]=={installed.version}"
        if (address := _git_address(json.loads(origin))) is not None:
            return f"{_PACKAGE.name}[app] @ {address}"
    raise ValueError(
        "app_requirement must say from where the Space installs this package, which came here "
        "neither from a package index nor from a Git repository at an https address, for example "
        f"{_EXAMPLE!r}; got none"
    )


def check_requirement(line: str) -> None:
    """Refuse what is not one line of a requirements.txt, as of PEP 508.

    Raises:
        ValueError: If it is not.
    """
    said = f"app_requirement must be one requirement, such as {_EXAMPLE!r}, got {line!r}"
    if not line.isprintable():
        raise ValueError(said)
    try:
        Requirement(line)
    except InvalidRequirement as error:
        raise ValueError(said) from error


def _installed() -> Distribution | None:
    """Find the installation that this copy is of; None if it lies in a folder on the path."""
    try:
        found = distribution(_PACKAGE.name)
    except PackageNotFoundError:
        return None
    place = Path(str(found.locate_file(_PACKAGE.name)))
    return found if place.resolve() == _PACKAGE.resolve() else None


def _git_address(origin: dict) -> str | None:
    """Give what pip installs a commit by; None if it is none that everybody may ask for."""
    url = urlsplit(origin.get("url", ""))
    version = origin.get("vcs_info", {})
    commit = version.get("commit_id", "")
    is_public = url.scheme == "https" and "@" not in url.netloc
    if not is_public or version.get("vcs") != "git" or not _COMMIT.fullmatch(commit):
        return None
    folder = origin.get("subdirectory")
    return f"git+{url.geturl()}@{commit}" + (f"#subdirectory={folder}" if folder else "")
