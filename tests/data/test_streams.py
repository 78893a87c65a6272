"""Streams of shards: every image once per epoch and rank, and exact resume at every batch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING

import datasets
import numpy as np
import pytest
import torch
from helpers.image_samples import encoded, flat, noise, write_folder, write_tar
from helpers.shards import COUNT, EACH, levels, opened, table, tar_files, write_shards

from ddpm_pipeline.data.loader import Prefetcher
from ddpm_pipeline.data.streams import open_stream

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("quiet_datasets")


KINDS = ["tar", "parquet", "jsonl"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shuffle_buffer", [0, 6, 1000])
def test_every_image_once_per_epoch(kind: str, shuffle_buffer: int, tmp_path: Path) -> None:
    stream = opened(write_shards(kind, tmp_path / "data"), shuffle_buffer=shuffle_buffer)
    seen = list(chain(*levels(stream, 17)))
    first, second = seen[:COUNT], seen[COUNT : 2 * COUNT]
    assert sorted(first) == sorted(second) == list(range(COUNT))
    in_order = [level == i for i, level in enumerate(first)]
    assert all(in_order) if shuffle_buffer == 0 else sum(in_order) < COUNT / 2
    assert (first == second) == (shuffle_buffer == 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_share_an_epoch(kind: str, world_size: int, tmp_path: Path) -> None:
    source = write_shards(kind, tmp_path / "data")
    seen: Counter[int] = Counter()
    for rank in range(world_size):
        stream = opened(source, rank=rank, world_size=world_size, shuffle_buffer=0)
        while True:
            batch = levels(stream, 1)[0]
            # The epoch of a rank ends within a batch: what begins the next one is left out.
            fresh = [level for level in batch if level not in seen]
            seen.update(fresh)
            if len(fresh) < len(batch):
                break
    assert seen == Counter(range(COUNT))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rank", "world_size", "size"), [(0, 1, 6), (1, 2, 6), (2, 3, 4), (0, 1, 0)]
)
def test_resuming_at_every_batch(
    kind: str, rank: int, world_size: int, size: int, tmp_path: Path
) -> None:
    source = write_shards(kind, tmp_path / "data")
    options = {"rank": rank, "world_size": world_size, "shuffle_buffer": size}
    stream, states, whole = opened(source, **options), [], []
    for _ in range(14):
        states.append(json.dumps(stream.state_dict()))
        whole += levels(stream, 1)
    other = opened(source, **options)
    for step in (13, 0, 5, 6, 3):
        other.load_state_dict(json.loads(states[step]))
        assert levels(other, min(3, 14 - step)) == whole[step : step + 3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 6])
def test_a_run_killed_after_every_batch(kind: str, size: int, tmp_path: Path) -> None:
    """States saved by a resumed run are as good as those of a first one."""
    source = write_shards(kind, tmp_path / "data")
    whole = levels(opened(source, shuffle_buffer=size), 20)
    state, seen = None, []
    for _ in range(20):
        stream = opened(source, shuffle_buffer=size)
        if state is not None:
            stream.load_state_dict(json.loads(state))
        seen += levels(stream, 1)
        state = json.dumps(stream.state_dict())
    assert seen == whole


def test_another_process_continues(tmp_path: Path) -> None:
    source = write_shards("tar", tmp_path / "data")
    stream = opened(source)
    next(stream)
    state = json.dumps(stream.state_dict())
    code = (
        "import sys, json\n"
        "from ddpm_pipeline.data.streams import open_stream\n"
        "stream = open_stream(sys.argv[1], resolution=8, channels=1, batch_size=5,\n"
        "                     shuffle_buffer=6, num_threads=3)\n"
        "stream.load_state_dict(json.loads(sys.argv[2]))\n"
        "print([next(stream).images[:, 0, 0, 0].tolist() for _ in range(8)])"
    )
    command = [sys.executable, "-c", code, source, state]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == levels(stream, 8)


def test_seeds_give_other_orders_of_shards_and_images(tmp_path: Path) -> None:
    source = write_shards("tar", tmp_path / "data")
    whole = [levels(opened(source, seed=seed, shuffle_buffer=1000), 5) for seed in (0, 0, 1)]
    assert whole[0] == whole[1] != whole[2]
    orders = set()
    for seed in range(8):
        seen = list(chain(*levels(opened(source, seed=seed, shuffle_buffer=7), 5)))
        orders.add(tuple(level // EACH for level in seen[::EACH]))
    assert len(orders) > 3  # a block of seven is a shard: which comes first differs


def test_through_the_prefetcher(tmp_path: Path) -> None:
    source = write_shards("tar", tmp_path / "data")
    whole = levels(opened(source), 12)
    with Prefetcher(opened(source), "cpu", background=True) as ahead:
        assert levels(ahead, 5) == whole[:5]
        state = ahead.state_dict()
        levels(ahead, 3)
        ahead.load_state_dict(state)
        assert levels(ahead, 7) == whole[5:]


def test_a_stream_object_and_a_stream_of_parts(tmp_path: Path) -> None:
    data = datasets.load_dataset(
        "parquet",
        data_files={"val": write_shards("parquet", tmp_path / "p") + "/*"},
        streaming=True,
    )
    assert levels(opened(data["val"], shuffle_buffer=0), 1) == [[0, 1, 2, 3, 4]]
    assert levels(opened(data, split="val", shuffle_buffer=0), 1) == [[0, 1, 2, 3, 4]]
    with pytest.raises(ValueError, match=r"split='test' must be one of \['val'\]"):
        opened(data, split="test")


def test_unreadable_images_are_passed_over_and_counted(tmp_path: Path) -> None:
    files = tar_files(0) | {"0002.png": b"junk", "0005.png": b""}
    write_tar(tmp_path / "x.tar", files)
    stream = opened(tmp_path / "x.tar", shuffle_buffer=0)
    assert levels(stream, 2) == [[0, 1, 3, 4, 6], [0, 1, 3, 4, 6]]
    assert stream.skipped == 4
    again = opened(tmp_path / "x.tar", shuffle_buffer=0)
    again.load_state_dict(stream.state_dict())
    assert (levels(again, 1), again.skipped) == ([[0, 1, 3, 4, 6]], 6)
    with pytest.raises(ValueError, match=r"0002\.png cannot be read; strict refuses that"):
        levels(opened(tmp_path / "x.tar", strict=True), 2)


def test_a_stream_without_one_good_image_ends(tmp_path: Path) -> None:
    files = {
        name: b"junk" if name.endswith("png") else data for name, data in tar_files(0).items()
    }
    write_tar(tmp_path / "x.tar", files)
    with pytest.raises(ValueError, match=r"none of the \d+ images of the stream can be read"):
        levels(opened(tmp_path / "x.tar"), 1)


def test_the_program_ends_quietly_within_a_shard(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from ddpm_pipeline.data.streams import open_stream\n"
        "stream = open_stream(sys.argv[1], resolution=8, batch_size=2, shuffle_buffer=2)\n"
        "next(stream)"
    )
    command = [sys.executable, "-c", code, write_shards("parquet", tmp_path / "data")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Exception ignored" not in run.stderr


def test_labels() -> None:
    kinds = datasets.ClassLabel(names=["a", "b"])
    stream = open_stream(table([1, 0], kinds), resolution=8, batch_size=2, labels=True)
    assert (stream.num_classes, stream.class_names) == (2, ("a", "b"))
    words = table(["dog", "cat"], datasets.Value("string"))
    options = {"resolution": 8, "batch_size": 2, "labels": True, "shuffle_buffer": 0}
    stream = open_stream(words, class_names=["cat", "dog"], **options)
    assert next(stream).labels.tolist() == [1, 0]
    unlabelled = open_stream(words, resolution=8, batch_size=2)
    assert next(unlabelled).labels is None


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, None], {"num_classes": 2}, "label missing for image"),
        ([0, -1], {"num_classes": 2}, "label missing for image"),
        ([0, 2], {"num_classes": 2}, "has label 2, not one of 2 classes"),
        ([0, 1], {}, "num_classes or class_names must be given: column 'label'"),
        ([0, 1], {"num_classes": 2, "class_names": ["a"]}, "num_classes=2, but there are 1"),
        ([0, 1], {"num_classes": 2, "label_column": "kind"}, "label_column='kind' must be one"),
        ([0, 1], {"num_classes": 2, "image_column": "x"}, "image_column='x' must be one of"),
        ([0, 1], {"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ([0, 1], {"rank": 2, "world_size": 2}, r"rank must be in 0 \.\.\. world_size - 1"),
        (
            [0, 1],
            {"shuffle_buffer": -1},
            "shuffle_buffer must be an integer of at least 0, got -1",
        ),
        ([0, 1], {"channels": 0}, "channels must be an integer of at least 1, or None, got 0"),
    ],
)
def test_options_that_do_not_fit(labels: list, options: dict, message: str) -> None:
    defaults = {"resolution": 8, "batch_size": 2, "labels": True}
    with pytest.raises(ValueError, match=message):
        next(open_stream(table(labels), **defaults | options))


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 4}, {"shuffle_buffer": 5}])
def test_states_of_other_runs_are_refused(change: dict[str, int], tmp_path: Path) -> None:
    source = write_shards("tar", tmp_path / "data")
    state = opened(source).state_dict()
    name, value = next(iter(change.items()))
    with pytest.raises(
        ValueError, match=rf"the state was saved with {name}=., but here {name}={value}"
    ):
        opened(source, **change).load_state_dict(state)


def test_random_crops_resume_and_differ_between_epochs() -> None:
    wide = encoded(noise(8, 40))
    columns = {"image": [{"bytes": wide, "path": None}] * 6}
    features = datasets.Features({"image": datasets.Image()})
    data = datasets.Dataset.from_dict(columns, features=features).to_iterable_dataset()
    options = {"resolution": 8, "batch_size": 6, "channels": 1, "crop": "random"}
    stream = open_stream(data, **options)
    first, state, second = next(stream).images, stream.state_dict(), next(stream).images
    again = open_stream(data, **options)
    again.load_state_dict(state)
    assert torch.equal(next(again).images, second)
    windows = {tuple(image) for image in torch.cat([first, second]).flatten(1).tolist()}
    assert len(windows) > 6
    possible = {tuple(noise(8, 40)[:, x : x + 8].ravel().tolist()) for x in range(33)}
    assert windows <= possible


def test_images_are_resized_and_cropped() -> None:
    columns = {"image": [{"bytes": encoded(noise(40, 30, 3)), "path": None}] * 2}
    features = datasets.Features({"image": datasets.Image()})
    data = datasets.Dataset.from_dict(columns, features=features).to_iterable_dataset()
    batch = next(open_stream(data, resolution=16, batch_size=2))
    assert batch.images.shape == (2, 3, 16, 16)
    assert np.asarray(batch.images).std() > 10


def test_what_was_dropped_is_kept_and_said_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = encoded(noise(64, 64))[:900]
    files = tar_files(0) | {"0002.png": b"junk", "0005.png": b"", "0006.png": cut}
    write_tar(tmp_path / "x.tar", files)
    stream = opened(tmp_path / "x.tar", shuffle_buffer=0, batch_size=2, num_threads=1)
    next(stream)
    assert (stream.dropped, caplog.text) == ({}, "")
    next(stream)
    assert "0002.png cannot be read (not an image); passed over" in caplog.text
    next(stream)
    counts = {reason: len(named.names) for reason, named in stream.dropped.items()}
    assert counts == {"not an image": 2, "image file is truncated": 1}
    assert sum(named.count for named in stream.dropped.values()) == stream.skipped == 3
    caplog.clear()
    stream.close()
    assert "the stream passed over 3 images: 2 not an image (" in caplog.text
    assert "0006.png" in caplog.text


def test_a_stream_that_dropped_nothing_ends_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stream = opened(write_shards("tar", tmp_path / "data"))
    next(stream)
    stream.close()
    assert not caplog.text


def test_options_of_reading(tmp_path: Path) -> None:
    deep = encoded((np.arange(64).reshape(8, 8) * 40).astype(np.int32), "TIFF")
    clear = encoded(np.zeros((4, 4, 4), np.uint8))
    write_tar(tmp_path / "deep.tar", {"0.tif": deep})
    write_tar(tmp_path / "clear.tar", {"0.png": clear})
    options = {"labels": False, "num_classes": None, "batch_size": 1}
    with pytest.raises(ValueError, match=r"0\.tif: its values .* value_range=\(low, high\) says"):
        next(opened(tmp_path / "deep.tar", **options))
    images = next(opened(tmp_path / "deep.tar", value_range=(0, 2520), **options)).images
    assert images[0, 0, 0, :3].tolist() == [0, 4, 8]
    stream = opened(tmp_path / "clear.tar", background="#0a0a0a", fit="pad", **options)
    assert (next(stream).images == 10).all()
    with pytest.raises(ValueError, match="none of the"):
        next(opened(tmp_path / "clear.tar", max_pixels=15, **options))


def test_folders_follow_the_rules_of_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {f"{part}/{k}/0.png": flat(1) for part in ("train", "test") for k in "ab"}
    folder = write_folder(tmp_path / "data", files | {"train/a/1.heic": b"ftypheic"})
    options = {"resolution": 8, "batch_size": 2, "labels": True}
    stream = open_stream(folder, **options)
    assert stream.class_names == ("a", "b")
    assert "1 files are not read, " in caplog.text
    with pytest.raises(ValueError, match=r"1 \.heic \(a/1\.heic\); strict refuses that"):
        open_stream(folder, strict=True, **options)
    write_folder(folder, {"cats/0.png": flat(2)})
    with pytest.raises(ValueError, match="holds images in test, train and in cats/"):
        open_stream(folder, **options)
