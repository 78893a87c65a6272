"""What every test stands on: no network, a fixed seed, one thread, and a real tiny UNet."""

from __future__ import annotations

import os
import tempfile

# Read by the Hugging Face libraries when they are imported, and inherited by subprocesses.
_HOME = tempfile.TemporaryDirectory(prefix="ddpm-tests-")
# Tests compute on the CPU where there is a GPU too; tests/gpu gives it back to its own processes.
os.environ.setdefault("DDPM_TESTS_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", "0"))
os.environ.update(
    CUDA_VISIBLE_DEVICES="",
    HF_HOME=_HOME.name,
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    DIFFUSERS_VERBOSITY="warning",
    TRANSFORMERS_VERBOSITY="error",
    MPLBACKEND="Agg",
    OMP_NUM_THREADS="1",
)

import random
import socket
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from diffusers import UNet2DModel
    from helpers.hub_clients import Client
    from helpers.hubs import Hub

settings.register_profile("tests", derandomize=True, deadline=None, database=None)
settings.load_profile("tests")
torch.set_num_threads(1)

LOOPBACK = {None, "", "127.0.0.1", "::1", "localhost", "0.0.0.0", socket.gethostname()}


def refuse_network(event: str, args: tuple) -> None:
    """Audit hook: any socket call that names a host other than this one fails."""
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        address = args[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event == "socket.getaddrinfo":
        host = args[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in LOOPBACK:
        raise RuntimeError(f"tests must not use the network: {event} to {host!r}")


sys.addaudithook(refuse_network)


def pytest_unconfigure() -> None:
    _HOME.cleanup()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Escape names that are no UTF-8 in what was logged: pytest-xdist cannot send them."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - seeds what libraries draw from NumPy's global generator
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def random_last_layers() -> Iterator[None]:
    """Fresh networks do not start at zero, so that few updates concern every layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ddpm_pipeline.networks.unets._LAST_LAYERS", ())
        yield


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A Hub on loopback without repositories; clients run in new processes, by plain LFS."""
    from helpers.hubs import running_hub

    with running_hub(tmp_path / "hub") as running:
        yield running


@pytest.fixture(scope="module")
def hub_and_client(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Hub, Client]]:
    """A Hub for all tests of a file, and one process that calls it."""
    from helpers.hub_clients import running_client
    from helpers.hubs import running_hub

    root = tmp_path_factory.mktemp("hub")
    with running_hub(root) as running, running_client(running.environment(), root) as client:
        yield running, client


@pytest.fixture
def client(hub_and_client: tuple[Hub, Client]) -> Client:
    """The process that calls the Hub of the file."""
    return hub_and_client[1]


@pytest.fixture
def tiny_unet() -> Callable[..., UNet2DModel]:
    """Make a real UNet2DModel, small enough to call in a millisecond or two, in eval mode.

    ``tiny_unet(channels=3, out_channels=6, sample_size=16, num_class_embeds=10)``
    """
    from helpers.unets import make_tiny_unet

    return make_tiny_unet


@pytest.fixture
def quiet_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the `datasets` library caches in the test's folder, and show no progress."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    datasets.disable_progress_bars()
