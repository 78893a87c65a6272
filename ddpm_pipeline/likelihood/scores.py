"""``ddpm score``: how likely a model finds each image of a data set, to find those that are odd.

ddpm score model --data photos/
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ddpm_pipeline.common import on_main, process_state, write_picture
from ddpm_pipeline.data import ImageData, contact_sheet, data_kind
from ddpm_pipeline.likelihood.config import ScoreConfig
from ddpm_pipeline.likelihood.figures import save_scores
from ddpm_pipeline.likelihood.report import BoundReport
from ddpm_pipeline.likelihood.saved_model import bound_on_images, check_results, output_folder

__all__ = ["scores_of_saved_model"]


def scores_of_saved_model(config: ScoreConfig) -> BoundReport:
    """Score every image by a saved model; write scores.csv and scores.png.

    On every process of `accelerate launch` together.

    Arguments:
        config: All options.
    Returns:
        The report, whose per_example are the scores.
    Raises:
        ValueError: If an option, the images or the model do not fit each other.
        OSError: If the model cannot be loaded.
    """
    check_results(config, "scores.csv", "scores.png")
    measured = bound_on_images(config, name="scores", shuffled=False)
    report, data = measured.report, measured.data

    def write() -> None:
        folder = output_folder(config)
        save_scores(report, folder / "scores.csv", _names(config, data))
        if config.num_shown:
            _save_extremes(report, data, folder / "scores.png", config.num_shown)

    on_main(write, process_state())
    return report


def _names(config: ScoreConfig, data: ImageData) -> Sequence[str]:
    """Give the file names of the images, or their numbers in the data without files."""
    has_files = data_kind(Path(config.data).expanduser()) == "images"
    return data.names if has_files else [str(i) for i in data.members.tolist()]


def _save_extremes(report: BoundReport, data: ImageData, path: Path, count: int) -> None:
    order = report.per_example.argsort()
    count = min(count, len(order))
    shown = torch.cat([order[:count], order.flip(0)[:count]])
    images: Tensor = data.pictures(shown)
    bits = report.per_example[shown].tolist()
    write_picture(path, contact_sheet(images, bits, shown.tolist()))
