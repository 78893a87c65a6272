"""``ddpm score``: how likely a model finds each image of a data set, to find those that are odd.

ddpm score model --data photos/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ddpm_pipeline.arguments import parse
from ddpm_pipeline.array_sources import is_idx_folder
from ddpm_pipeline.bound_command import MeasureConfig, measure, output_folder
from ddpm_pipeline.bound_figures import contact_sheet, save_scores
from ddpm_pipeline.bound_report import BoundReport
from ddpm_pipeline.data import ImageData
from ddpm_pipeline.dataset_sources import is_dataset_path
from ddpm_pipeline.image_sources import folder_source
from ddpm_pipeline.sampling import process_state

__all__ = ["ScoreConfig", "run", "score_command"]


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(MeasureConfig):
    """Score every image by its bound in bits per dimension; the higher, the less likely.

    Writes scores.csv, and scores.png with the most and the least likely images.
    """

    num_timestep_samples: int = 32
    """Timesteps drawn for each image, beside the decoder's; 0 sums every term exactly."""
    num_shown: int = 16
    """Images of each kind in scores.png; 0 writes none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_shown < 0:
            raise ValueError(f"num_shown must be at least 0, got {self.num_shown}")


def score_command(config: ScoreConfig) -> BoundReport:
    """Score, write scores.csv and scores.png, and return the report.

    On every process of `accelerate launch` together.

    Arguments:
        config: All options.
    Raises:
        ValueError: If an option, the images or the model do not fit each other.
        OSError: If the model cannot be loaded.
    """
    report, data, _ = measure(config, name="scores", shuffled=False)
    if process_state().is_main_process:
        folder = output_folder(config)
        save_scores(report, folder / "scores.csv", _names(config, data))
        if config.num_shown:
            _save_extremes(report, data, folder / "scores.png", config.num_shown)
    return report


def run(argv: Sequence[str]) -> None:
    """Score as the arguments say, and print the table and the extremes."""
    if argv and not argv[0].startswith("-"):
        argv = ["--model", *argv]
    config = parse(ScoreConfig, argv, prog="ddpm score")
    report = score_command(config)
    if process_state().is_main_process:
        print(report)  # noqa: T201
        print(output_folder(config) / "scores.csv")  # noqa: T201


def _names(config: ScoreConfig, data: ImageData) -> Sequence[str]:
    """File names of the images, or their numbers in the data where there are no files."""
    numbers = data.members.tolist()
    path = Path(config.data).expanduser()
    has_files = path.is_dir() and not is_idx_folder(path) and not is_dataset_path(path)
    # Images that could not be read are left out of the data, but not of the folder.
    if not has_files or data.skipped:
        return [str(i) for i in numbers]
    source = folder_source(path, config.split)
    return [source.name(i) for i in numbers]


def _save_extremes(report: BoundReport, data: ImageData, path: Path, count: int) -> None:
    order = report.per_example.argsort()
    count = min(count, len(order))
    shown = torch.cat([order[:count], order.flip(0)[:count]])
    images: Tensor = data.batch(shown).images
    bits = report.per_example[shown].tolist()
    contact_sheet(images, bits, shown.tolist()).save(path)
