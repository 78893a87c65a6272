"""The options of ``ddpm evaluate``.

    EvaluateConfig(model="model", data="photos/", features="inception", num_images=50_000)

They are checked when they are made, as far as that needs neither the model nor the images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ddpm_pipeline.common import check_at_least, check_has_folder, expand_home
from ddpm_pipeline.data import ReadingOptions
from ddpm_pipeline.pipelines import SamplingOptions

__all__ = ["EvaluateConfig"]


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ReadingOptions, SamplingOptions):
    """Compare a model's images with real ones: Fréchet distance, KID, precision and recall.

    Draws images, or takes those that `ddpm sample` wrote, measures bits per dimension too, and
    writes evaluation.json and nearest.png. With images that the model was not trained on beside
    those that it was, tests whether it copies these, and writes copies.png.
    """

    data: str
    """Reference images: what the model was trained on; anything that `open_images` takes."""
    split: str | None = None
    """Which part of the data; "train" unless given, if there is one. Where training held images
    out by validation_size, "training" and "validation" are the parts it made."""
    dataset_config_name: str | None = None
    """Which configuration of a data set of the Hub."""
    fit: Literal["exact", "resize", "pad"] | None = None
    """Refuse images of another size than the model's, or scale and crop them, or put a border
    around smaller ones; as in training, or exact for a model that does not remember it."""
    num_reference: int | None = None
    """Reference images, drawn at random; all unless given."""
    num_images: int = 10_000
    """Images to draw; FID is biased upwards with less than 10,000, and papers use 50,000."""
    samples: str | None = None
    """Images that `ddpm sample` wrote, to be measured in place of new ones."""
    features: str = "inception"
    """"inception", a directory of features, a .py file, or a vision model of transformers."""
    num_kept: int = 10_000
    """Images of each set that KID, precision and recall look at."""
    kid_subsets: int = 10
    """Subsets that KID and its error come from."""
    neighbors: int = 3
    """Neighbours that the balls of precision and recall reach to."""
    num_nearest: int = 16
    """Images to show above the reference images nearest to them, and of the worst that may be
    copies; 0 shows none."""
    bound_data: str | None = None
    """Held-out images for bits/dim; the data unless given."""
    bound_split: str | None = None
    """Which part of the held-out images, or of the data where bound_data is not given."""
    bound_images: int | None = None
    """Images for bits/dim, drawn at random; 256 or all if fewer unless given, 0 leaves it out."""
    bound_timesteps: int = 10
    """Timesteps drawn for each of them; the bound is that of the full chain of DDPM."""
    training_data: str | None = None
    """Images that the model was trained on, where data are others: for the test of copying."""
    training_split: str | None = None
    """Which part of them, or of the data where training_data is not given."""
    output_dir: str | None = None
    """Folder for evaluation.json, nearest.png and copies.png; the model's unless given."""
    cache_dir: str | None = None
    """Where decoded images are kept; $DDPM_PIPELINE_CACHE or below $HF_HOME unless given."""
    verify_cache: bool = False
    """Hold all decoded images that are kept against their checksums, rather than a sample."""
    statistics_dir: str | None = None
    """Where statistics of reference images are kept; beside the decoded images unless given."""

    def __post_init__(self) -> None:
        ReadingOptions.__post_init__(self)
        SamplingOptions.__post_init__(self)
        expand_home(self, "data", "samples", "features", "bound_data", "training_data")
        expand_home(self, "output_dir", "cache_dir", "statistics_dir")
        check_at_least(self, num_images=1, num_kept=1, kid_subsets=2, neighbors=1)
        check_at_least(self, num_nearest=0, bound_timesteps=1, num_reference=1, bound_images=0)
        if self.output_dir is None:
            check_has_folder(self.model, "output_dir must be given")
