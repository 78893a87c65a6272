"""``DataOptions``: the options of ``TrainingConfig`` that say which images, and how they are read.

They come first among the options, and are checked with all others in ``checks``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ddpm_pipeline.networks import Upsampling

__all__ = ["DataOptions"]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which images a run is trained and validated on, and how they are brought to one size."""

    train_data_dir: str | None = None
    """Images: a folder (any nesting), a .npy, .npz, IDX or .parquet file, or a folder of them."""
    dataset_name: str | None = None
    """A data set of the Hub or of `save_to_disk`, in place of train_data_dir."""
    dataset_config_name: str | None = None
    """Which configuration of dataset_name."""
    train_split: str | None = None
    """Which part of the data to train on; "train" unless given, if there is one."""
    validation_data_dir: str | None = None
    """Held-out images, in place of a part of the training data."""
    validation_split: str | None = None
    """Which part of the data to validate on, such as "test"."""
    validation_size: float = 0.0
    """Training images to hold out: a fraction below 1, or a number. 0 holds out none."""
    image_column: str | None = None
    """Column of the images in a data set; found by its type unless given."""
    label_column: str | None = None
    """Column of the class labels in a data set; found by its type unless given."""
    condition_on: str | None = None
    """Images that the model is given beside the noise, one for each image: a folder with files of
    the same names, a file of as many images, or a column of the data."""
    condition_upsampling: Upsampling = "bicubic"
    """How images of condition_on are scaled up that are smaller than the images."""
    condition_vector: tuple[str, ...] | None = None
    """Columns of numbers that the model is told: of metadata.csv or .jsonl, a data set or .npz."""
    value_range: tuple[float, float] | None = None
    """The values that become black and white, for arrays that are not bytes; with depth exact -1
    and 1, which unless given the mean and two standard deviations of each channel say."""
    depth: Literal["bytes", "exact"] = "bytes"
    """Round deeper values to 256 levels, or keep uint8, uint16, int16, float16 and float32 as they
    are: the model then remembers their unit."""
    outside_range: Literal["refuse", "clip"] = "refuse"
    """With depth exact, refuse values outside value_range, or cut them; they are named anyway."""
    cache_dir: str | None = None
    """Where decoded images are kept; $DDPM_PIPELINE_CACHE or below $HF_HOME unless given."""
    verify_cache: bool = False
    """Hold all decoded images that are kept against their checksums, rather than a sample."""
    streaming: bool = False
    """Read sharded data as it goes, rather than decode it once; needs max_train_steps."""
    shuffle_buffer: int = 1000
    """How many images of a stream are read and permuted together."""
    strict_data: bool = False
    """Refuse images that cannot be read, rather than skip, count and name them."""
    resolution: int | tuple[int, int] = 64
    """Side of the images, or two numbers: their height and width."""
    channels: int | None = None
    """1, 3 or 4 for pictures, any number for arrays, bands; found in the images unless given."""
    picture_bands: tuple[int, ...] | None = None
    """Channels that pictures of samples show, one or three, counted from 0; unless given all of up
    to four, and of more the first three."""
    fit: Literal["resize", "pad"] = "resize"
    """Scale images until they cover the resolution, or put black around smaller ones."""
    center_crop: bool = True
    """Cut the longer side in its middle; otherwise at a place drawn anew each time."""
    background: str | None = None
    """Colour below transparent pixels and around padded images, such as "white" or "#80c0ff"."""
    max_pixels: int | None = None
    """Largest image that is read, in pixels; Pillow's limit unless given."""
    tiff_bands: Literal["all", "picture"] | None = None
    """Of TIFF files with several pages, or more bands than pictures have: make all bands of all
    pages channels, or take the picture of the first page; unless given they are refused."""
    stack_pattern: str | None = None
    """Files of a folder that are a band each of one image: a regular expression of their names
    with two groups, as (?P<name>.*)_band(?P<band>[0-9]+); all have the same bands. "none" makes
    each file an image, whatever a pretrained model says."""
    random_flip: bool = False
    """Mirror each image left to right with probability one half."""
