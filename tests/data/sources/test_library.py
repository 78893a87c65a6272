"""The private parts of `datasets` that are relied on still say what they are asked for."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain

import datasets
import pytest

from ddpm_pipeline.data.sources.library import (
    absent_data_set,
    content_key,
    has_shuffle_buffer,
    import_datasets,
    share_of_rows,
)

pytestmark = pytest.mark.usefixtures("quiet_datasets")


def numbers(count: int = 12, num_shards: int = 1) -> datasets.IterableDataset:
    data = datasets.Dataset.from_dict({"i": list(range(count))})
    return data.to_iterable_dataset(num_shards=num_shards)


def test_the_library_is_the_library() -> None:
    assert import_datasets() is datasets


def test_without_the_library_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['datasets'] = None\n"
        "from ddpm_pipeline.data import open_images\n"
        "open_images('some/data', resolution=8)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: data sets need the `datasets` package")
    assert last.endswith("pip install ddpm_pipeline[train]")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ConnectionError("Couldn't reach 'a/b' on the Hub (OfflineModeIsEnabled)"),
            "'a/b' is no path here, and the Hub could not be asked for a data set of that name: C",
        ),
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub"),
            "'a/b' is neither a path here nor a data set on the Hub: Dataset 'a/b' doesn't exist",
        ),
        (
            ValueError("BuilderConfig 'x' not found"),
            "'a/b' is no path here, and a data set of that name on the Hub cannot be opened: B",
        ),
    ],
)
def test_an_absent_data_set_is_said_to_be_what_is_known(error: Exception, said: str) -> None:
    assert str(absent_data_set("a/b", error)).startswith(said)


def test_a_content_key_follows_rows_and_operations() -> None:
    data = datasets.Dataset.from_dict({"i": [3, 1, 2]})
    same = datasets.Dataset.from_dict({"i": [3, 1, 2]})
    assert content_key(data) == content_key(same)
    others = [data.select([0, 1]), data.select([1, 0]), data.sort("i"), data.shuffle(0)]
    assert len({content_key(other) for other in [data, *others]}) == 5


def test_shuffle_buffers_are_seen_below_any_layers() -> None:
    assert not has_shuffle_buffer(numbers())
    assert not has_shuffle_buffer(numbers().map(lambda row: row).take(5))
    assert has_shuffle_buffer(numbers().shuffle(seed=0))
    above = numbers().shuffle(seed=0).map(lambda row: row).filter(lambda row: row["i"] > 2)
    assert has_shuffle_buffer(above.take(5).rename_column("i", "j"))


@pytest.mark.parametrize("num_shards", [1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_all_rows(num_shards: int, world_size: int) -> None:
    stream = numbers(num_shards=num_shards)
    streams = [share_of_rows(stream, rank, world_size) for rank in range(world_size)]
    shares = [[row["i"] for row in share] for share in streams]
    assert sorted(chain(*shares)) == list(range(12))
    assert {len(share) for share in shares} == {12 // world_size}
