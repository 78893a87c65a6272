"""What lies in a folder, and what only seems to: names with separators, links that lead out.

is_plain_name("unet")                     no separators, not hidden, no "." or ".."
check_inside(folder, "unet/config.json")  refuses a file that is a link to somewhere else
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["check_inside", "is_plain_name"]


def is_plain_name(name: object) -> bool:
    """Tell whether a value is the name of a file or folder, not hidden, on any system."""
    if not isinstance(name, str) or not name or name.startswith("."):
        return False
    return not any(character in "/\\:\0" for character in name)


def check_inside(folder: Path, file: str) -> None:
    """Refuse a file that lies elsewhere than in its folder, as through a link.

    The cache of the Hub keeps a model's files elsewhere and links to them; these links are
    followed.

    Arguments:
        folder: The folder.
        file: A path in it.
    Raises:
        ValueError: If it leads out.
    """
    target = (folder / file).resolve()
    if target.is_relative_to(folder.resolve()) or _is_in_cache(target):
        return
    raise ValueError(
        f"{file!r} in {str(folder)!r} leads to {str(target)!r}, outside the folder; only what "
        "lies in it is sent: put a copy in its place, or take it away"
    )


def _is_in_cache(target: Path) -> bool:
    """Tell whether a file is one of those that the Hub's cache keeps, of any repository."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).resolve()
    return target.parent.name == "blobs" and target.parent.parent.parent == cache
