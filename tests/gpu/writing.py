"""Results as JSON files, whole after every item: gpu_checks.json, gpu_training.json, …

A file holds its items by name, each with the machine, the commit and the day that it comes from,
so that a second run of some items replaces these and no others.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu.plan import Item

__all__ = ["write"]


def write(folder: Path, item: Item, found: dict[str, Any], about: dict[str, Any]) -> Path:
    """Put what an item found into its file; the file.

    Arguments:
        folder: Of the files.
        item: Which item.
        found: Its verdict, figure, bounds, numbers, table and seconds.
        about: Where it ran: the machine, the commit, the dtype.
    """
    path = folder / f"gpu_{item.file}.json"
    folder.mkdir(parents=True, exist_ok=True)
    items = json.loads(path.read_text(encoding="utf-8"))["items"] if path.exists() else {}
    today = dt.datetime.now(dt.UTC).date().isoformat()
    kept = {key: value for key, value in found.items() if key != "usable"}
    items[item.name] = {"what": item.what, **kept, "date": today, **about}
    text = json.dumps({"items": items}, indent=1, ensure_ascii=False) + "\n"
    aside = path.with_suffix(".partial")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
    return path
