"""What is known of a model or a run by numbers: its card, and the course of its training.

card_of("model")        Markdown: bits/dim, distances, calibration, how it was trained
losses_of("runs/pets")  {"loss": [(50, 0.31), ...], ...}
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from huggingface_hub.repocard import REGEX_YAML_BLOCK
from PIL import Image

from ddpm_pipeline.cards import card_picture, renew_card

__all__ = ["card_of", "losses_of", "pictures_of"]

_PICTURE = re.compile(r"^!\[.*\n", re.MULTILINE)  # its file is shown beside the card
_CURVES = {"loss": "loss", "validation_loss": "validation loss", "bound_bits_per_dim": "bits/dim"}


def card_of(name: str) -> str:
    """Give the card of a model's folder as it would be pushed now, without its picture."""
    folder = Path(name)
    if not folder.is_dir():
        return "The card of a model of the Hub is on its page there."
    if not (folder / "model_index.json").is_file():
        return "There is no saved model yet: images are those of the newest checkpoint."
    try:
        text = renew_card(folder, repo_id=folder.resolve().name, existing="")
    except ValueError as error:
        return str(error)
    return _PICTURE.sub("", REGEX_YAML_BLOCK.sub("", text, count=1)).strip()


def losses_of(name: str) -> dict[str, list[tuple[float, float]]]:
    """Read the course of a run's training from its metrics.jsonl, which may still grow.

    Returns:
        (update, value) of what was measured, by its name in words.
    """
    path = Path(name, "metrics.jsonl")
    if not path.is_file():
        return {}
    rows = [_row(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = {
        words: [(row["step"], row[key]) for row in rows if row.keys() >= {"step", key}]
        for key, words in _CURVES.items()
    }
    return {words: points for words, points in found.items() if points}


def _row(line: str) -> dict[str, float]:
    """Read a line; one that is being written has nothing yet."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return row if isinstance(row, dict) else {}


def pictures_of(name: str) -> list[Image.Image]:
    """Read the pictures that lie in a model's folder: its samples, and plots of calibrations."""
    folder = Path(name)
    if not folder.is_dir():
        return []
    newest = card_picture(folder)
    plots = sorted(folder.glob("*.png"))
    found = [] if newest is None else [folder / newest]
    return [_read(path) for path in dict.fromkeys([*found, *plots])]


def _read(path: Path) -> Image.Image:
    with Image.open(path, formats=["PNG"]) as picture:
        return picture.copy()
