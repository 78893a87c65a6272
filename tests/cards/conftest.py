"""A trained and measured model whose card is made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.features import MEANS_OF_QUARTERS
from helpers.training_runs import tiny_config

from ddpm_pipeline import train
from ddpm_pipeline.calibration.config import CalibrateConfig
from ddpm_pipeline.calibration.saved_model import calibrate_saved_model
from ddpm_pipeline.evaluation.config import EvaluateConfig
from ddpm_pipeline.evaluation.saved_model import evaluate
from ddpm_pipeline.likelihood.config import BoundConfig
from ddpm_pipeline.likelihood.saved_model import bound_of_saved_model


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run's folder with all that is measured of its model, and its data beside it."""
    root = tmp_path_factory.mktemp("secret-place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDPM_PIPELINE_CACHE", str(root / "cache"))
        train(tiny_config(root, max_train_steps=4, save_images_steps=2))
        (root / "means.py").write_text(MEANS_OF_QUARTERS)
        model, data = str(root / "run"), str(root / "images.npy")
        evaluate(
            EvaluateConfig(
                model=model,
                data=data,
                features=str(root / "means.py"),
                num_images=20,
                num_inference_steps=4,
                num_nearest=0,
                kid_subsets=2,
                bound_images=8,
                seed=5,
            )
        )
        bound_of_saved_model(BoundConfig(model=model, data=data, num_images=12))
        calibrate_saved_model(
            CalibrateConfig(model=model, data=data, num_forwards=40, num_inference_steps=(4,))
        )
    return root


@pytest.fixture
def run(measured: Path, tmp_path: Path) -> Path:
    """Copy the run's folder."""
    return shutil.copytree(measured / "run", tmp_path / "run")
