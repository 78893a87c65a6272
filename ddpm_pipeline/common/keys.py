"""Keys by which values and files are known again, as names of cached things.

    key_of("pixels", 64, [1, 2])          of anything JSON can hold
    stat_key([Path("images.npy")])        of files, by their names, sizes and times

They cost nothing to import.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["key_of", "stat_key"]


def key_of(*parts: Any) -> str:  # noqa: ANN401 (anything JSON can hold)
    """Hash JSON values to 128 bits, as 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def stat_key(paths: Sequence[Path], *more: object) -> str:
    """Hash names, sizes and times of files: the quick key of their content."""
    stats = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    return key_of(stats, *more)
