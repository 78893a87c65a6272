"""A model for the page."""

from __future__ import annotations

import pytest
from helpers.pipelines import pipeline
from helpers.unets import make_tiny_unet


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a saved model in colour, 8 × 8, with ten timesteps."""
    folder = tmp_path_factory.mktemp("models") / "model"
    pipeline(make_tiny_unet(3), num_train_timesteps=10).save_pretrained(folder)
    return str(folder)
