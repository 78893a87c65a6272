"""A run that tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.training_runs import metrics, tiny_config

from ddpm_pipeline.training.run import train


@pytest.fixture(scope="module")
def a_run(random_last_layers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config(folder, validation_size=8, logger="tensorboard", max_train_steps=10)
    result = train(config)
    assert result.finished
    assert result.global_step == 10
    assert result.output_dir == folder / "run"
    assert result.loss == metrics(folder / "run")[-2]["loss"]
    return folder / "run"
