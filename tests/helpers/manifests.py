"""Checkpoints whose files were changed, with manifests that fit them."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path


def sealed(path: Path) -> Path:
    """Write a checkpoint's manifest anew for the files that are in it; give the folder back."""
    entries = {
        file.name: {"size": file.stat().st_size, "sha256": sha256(file.read_bytes()).hexdigest()}
        for file in path.iterdir()
        if file.name != "manifest.json"
    }
    (path / "manifest.json").write_text(json.dumps(entries))
    return path
