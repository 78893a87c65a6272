"""A Hub for training, and a client of it, whose names must not get out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.hub_clients import running_client
from helpers.hubs import running_hub
from helpers.pushed_runs import PLACE, USER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.hub_clients import Client
    from helpers.hubs import Hub


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Client]]:
    """A Hub, and a client of it whose user, home and folders have names to look for."""
    root = tmp_path_factory.mktemp(PLACE)
    with running_hub(root / "hub") as hub:
        environment = hub.environment() | {"USER": USER, "LOGNAME": USER}
        environment |= {"HOME": str(root / USER)}
        with running_client(environment, root) as client:
            yield hub, client


@pytest.fixture
def hub(served: tuple[Hub, Client]) -> Iterator[Hub]:
    yield served[0]
    served[0].fail()


@pytest.fixture
def client(served: tuple[Hub, Client]) -> Client:
    return served[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a run is, under a name that must not get out."""
    return tmp_path / PLACE
