"""Processes that run items for tests: one on the GPU, one that rehearses on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gpu.machine import fashion_mnist
from gpu.watching import Worker


@pytest.fixture(scope="module")
def rehearsing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Worker(tmp_path_factory.mktemp("rehearsal"), rehearse=True, data=None) as worker:
        worker.start()
        yield worker


@pytest.fixture(scope="module")
def on_gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("gpu")
    with Worker(folder, rehearse=False, data=fashion_mnist()) as worker:
        worker.start()
        if not worker.about["has_device"]:
            pytest.skip("there is no CUDA device")
        yield worker
