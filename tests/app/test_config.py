"""The options of the page, and what is refused of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ddpm_pipeline.app import AppConfig


def test_a_single_model_and_home_folders() -> None:
    assert AppConfig(models="model").models == ("model",)
    assert AppConfig(models=("~/model",)).models == (str(Path.home() / "model"),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ()}, "models must name at least one model to show, got none"),
        ({"models": ("a", "b", "a")}, "models must differ, got 'a' more than once"),
        ({"port": 0}, "port must be at least 1, got 0"),
        ({"port": 70_000}, "port must be at most 65535, got 70000"),
        ({"most_images": 0}, "most_images must be at least 1, got 0"),
        ({"most_waiting": -1}, "most_waiting must be at least 1, got -1"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        AppConfig(**{"models": ("model",), **options})
