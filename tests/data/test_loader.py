"""Endless batches: the loader's step, and a thread that works ahead without losing its place."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from helpers.image_samples import encoded, noise, write_folder

from ddpm_pipeline.data.images import Batch, ImageData, open_images
from ddpm_pipeline.data.loader import ImageLoader, Prefetcher
from ddpm_pipeline.data.order import batch_indices

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def data() -> ImageData:
    return open_images(noise(23, 8, 8), resolution=8, labels=list(range(23)), progress=False)


@pytest.fixture
def oblong(tmp_path: Path) -> ImageData:
    files = {f"{i}.png": encoded(noise(8, 20, seed=i)) for i in range(7)}
    folder = write_folder(tmp_path / "oblong", files)
    cache = tmp_path / "cache"
    return open_images(folder, resolution=8, crop="random", cache_dir=cache, progress=False)


def take(source: Any, count: int) -> list[tuple]:
    batches = [next(source) for _ in range(count)]
    return [tuple(None if p is None else p.tolist() for p in batch) for batch in batches]


def test_batches_are_those_of_the_order(data: ImageData) -> None:
    loader = ImageLoader(data, batch_size=4, seed=2, rank=1, world_size=2)
    for step in range(12):
        order = {"length": 23, "batch_size": 4, "seed": 2, "rank": 1, "world_size": 2}
        indices = batch_indices(step, **order)
        images, labels = next(loader)
        assert torch.equal(labels, indices)
        assert torch.equal(images, data.batch(indices).images)


@pytest.mark.parametrize("kind", ["data", "oblong"])
def test_resuming_at_any_step(kind: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(kind)
    loader = ImageLoader(source, batch_size=5, seed=1)
    states, whole = [], []
    for _ in range(8):
        states.append(loader.state_dict())
        whole += take(loader, 1)
    for step, state in enumerate(states):
        again = ImageLoader(source, batch_size=5, seed=1)
        again.load_state_dict(state)
        assert take(again, 8 - step) == whole[step:]


def test_random_crops_differ_between_steps_ranks_and_seeds(tmp_path: Path) -> None:
    files = {f"{i}.png": encoded(noise(8, 90)) for i in range(8)}  # the same image eight times
    folder, cache = write_folder(tmp_path / "wide", files), tmp_path / "cache"
    wide = open_images(folder, resolution=8, crop="random", cache_dir=cache, progress=False)
    first = ImageLoader(wide, batch_size=4, world_size=2)
    second = ImageLoader(wide, batch_size=4, world_size=2, rank=1)
    third = ImageLoader(wide, batch_size=4, world_size=2, seed=1)
    batches = [*take(first, 2), *take(second, 1), *take(third, 1)]
    assert len({str(images) for images, _ in batches}) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "saved with seed=0, but here seed=1"),
        ({"batch_size": 3}, "saved with batch_size=4, but here batch_size=3"),
        ({"world_size": 2}, "saved with world_size=1, but here world_size=2"),
    ],
)
def test_states_of_other_runs_are_refused(data: ImageData, change: dict, message: str) -> None:
    state = ImageLoader(data, batch_size=4).state_dict()
    with pytest.raises(ValueError, match=message):
        ImageLoader(data, **{"batch_size": 4} | change).load_state_dict(state)


def test_states_of_other_data_are_refused(data: ImageData) -> None:
    state = ImageLoader(data, batch_size=4).state_dict()
    with pytest.raises(ValueError, match="the state was saved with fingerprint="):
        ImageLoader(data.subset(range(22, -1, -1)), batch_size=4).load_state_dict(state)


def test_a_batch_larger_than_the_data_is_refused_at_once(data: ImageData) -> None:
    with pytest.raises(ValueError, match="batch_size=24 on 1 processes is larger than the data"):
        ImageLoader(data, batch_size=24)


@pytest.mark.parametrize("background", [False, True])
def test_prefetching_changes_nothing(data: ImageData, background: bool) -> None:
    with Prefetcher(ImageLoader(data, batch_size=4), "cpu", background=background) as ahead:
        assert take(ahead, 10) == take(ImageLoader(data, batch_size=4), 10)


@pytest.mark.parametrize("background", [False, True])
def test_the_state_is_that_of_the_last_batch_handed_out(data: ImageData, background: bool) -> None:
    whole = take(ImageLoader(data, batch_size=4), 12)
    with Prefetcher(ImageLoader(data, batch_size=4), "cpu", background=background) as ahead:
        assert ahead.state_dict()["step"] == 0
        take(ahead, 5)
        time.sleep(0.1)  # long enough to work ahead
        state = ahead.state_dict()
        assert take(ahead, 2) == whole[5:7]
        ahead.load_state_dict(state)
        assert take(ahead, 3) == whole[5:8]
        ahead.close()
        assert take(ahead, 2) == whole[8:10]  # a closed prefetcher starts again where it was
    resumed = ImageLoader(data, batch_size=4)
    resumed.load_state_dict(state)
    assert take(resumed, 7) == whole[5:]


class Counting:
    """A loader that says how far it was asked and fails at a step."""

    def __init__(self, fail_at: int) -> None:
        self.step, self.fail_at = 0, fail_at

    def __next__(self) -> Batch:
        if self.step == self.fail_at:
            raise FileNotFoundError("shard 7 is missing")
        self.step += 1
        return Batch(torch.tensor([self.step]), None)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]


def test_errors_come_after_the_batches_before_them() -> None:
    with Prefetcher(Counting(fail_at=3), "cpu", background=True) as ahead:
        assert [int(next(ahead).images) for _ in range(3)] == [1, 2, 3]
        for _ in range(2):
            with pytest.raises(FileNotFoundError, match="shard 7 is missing"):
                next(ahead)


def test_closing_does_not_touch_a_loader_that_fails() -> None:
    class Gone(Counting):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise FileNotFoundError(f"all shards are gone at {state}")

    with Prefetcher(Gone(fail_at=1), "cpu", background=True) as ahead:
        next(ahead)
        with pytest.raises(FileNotFoundError, match="shard 7 is missing"):
            next(ahead)


def test_a_state_is_loaded_once() -> None:
    """For a stream, loading reads a block of images again."""

    class Watched(Counting):
        loads = 0

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.loads += 1
            super().load_state_dict(state)

    loader = Watched(fail_at=-1)
    with Prefetcher(loader, "cpu", background=True) as ahead:
        next(ahead)
        ahead.load_state_dict({"step": 7})
        assert int(next(ahead).images) == 8
    assert loader.loads == 1


def test_it_works_ahead_by_its_depth_and_ends_its_thread() -> None:
    loader = Counting(fail_at=-1)
    before = threading.active_count()
    with Prefetcher(loader, "cpu", depth=3, background=True) as ahead:
        next(ahead)
        deadline = time.monotonic() + 10
        while loader.step < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert loader.step == 5  # one handed out, three ready, one waiting for a place
    assert threading.active_count() == before
    assert ahead.state_dict() == {"step": 1}


def test_no_thread_on_the_cpu_unless_told() -> None:
    before = threading.active_count()
    loader = Counting(fail_at=-1)
    next(Prefetcher(loader, "cpu"))
    assert (threading.active_count(), loader.step) == (before, 1)


def test_depth_is_positive() -> None:
    with pytest.raises(ValueError, match="depth must be an integer of at least 1, got 0"):
        Prefetcher(Counting(fail_at=-1), "cpu", depth=0)
