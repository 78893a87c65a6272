"""A first look at data on this machine: what names of files tell is refused without torch.

    check_source("photos/", split="vall")       refused, as there is no such folder

What is in the files, and what is on the Hub, is left to those that open them.
"""

from __future__ import annotations

import os
from pathlib import Path

from ddpm_pipeline.data.sources.arrays import check_suffix, choose_idx
from ddpm_pipeline.data.sources.folders import check_folder
from ddpm_pipeline.data.sources.kinds import data_kind
from ddpm_pipeline.data.sources.shard_files import check_shards, is_shards, shard_files
from ddpm_pipeline.data.sources.splits import choose_split_folder

__all__ = ["check_source"]


def check_source(source: str | os.PathLike, split: str | None = None) -> None:
    """Refuse data whose names tell that they cannot be read.

    Arguments:
        source: Anything that ``open_images`` or ``open_stream`` takes; names of the Hub pass.
        split: The part that is to be read.
    Raises:
        FileNotFoundError: If shards are missing.
        ValueError: If there is nothing to read or no such split, if it is not clear what is to be
            read, or a file is of no kind that is known.
    """
    if is_shards(source):
        check_shards(shard_files(source, split))
        return
    path = Path(source).expanduser()
    kind = data_kind(path)
    if kind == "images":
        choose_split_folder(path, split)
    elif kind == "nothing":
        check_folder(path, split)
    elif kind == "idx":
        choose_idx(path, split)
    elif kind == "file":
        check_suffix(path)
