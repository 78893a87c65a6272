"""Asking once whether the Hub has a model: what it says, what is cached, and how long it takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from helpers.hubs import running_hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.hubs import Hub

NAME = "alice/digits"
MAKE = f"""
from huggingface_hub import CommitOperationAdd, HfApi

HfApi().create_repo({NAME!r})
add = [CommitOperationAdd("model_index.json", b"{{}}")]
HfApi().create_commit({NAME!r}, add, commit_message="by hand")
"""
# Tells of each call what was raised, and after how long.
CHECK = """
import json, sys, time
from ddpm_pipeline.hub import check_on_hub

for name, options in map(json.loads, sys.argv[1:]):
    began, said = time.monotonic(), ["", ""]
    try:
        check_on_hub(name, **options)
    except Exception as error:
        said = [type(error).__name__, str(error)]
    print(json.dumps([*said, time.monotonic() - began]))
assert not {"torch", "numpy"} & {*sys.modules}
"""


def check(hub: Hub, *calls: tuple[str, dict[str, Any]], **client: Any) -> list[list[Any]]:
    """Error, message and seconds of each call in a new process."""
    run = hub.python(CHECK, *map(json.dumps, calls), **client)
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        hub.python(MAKE)
        yield hub


def test_a_model_is_there_or_not(hub: Hub) -> None:
    hub.requests()
    there, missing = check(hub, (NAME, {}), ("alice/nothing", {}))
    assert there[:2] == ["", ""]
    assert missing[0] == "NotOnHubError"
    assert missing[1].startswith(
        "cannot load 'alice/nothing': there is no such folder and no such"
    )
    assert len(hub.requests()) == 2


def test_it_is_asked_once_and_shortly(hub: Hub) -> None:
    hub.requests()
    hub.fail({"mode": "hang", "method": "GET", "path": "/alice/slow", "times": 99})
    (late,) = check(hub, ("alice/slow", {"limit": 1}))
    assert late[:2] == [
        "HubTimeoutError",
        f"cannot load 'alice/slow': no answer within 1 s from {hub.url}; try again later",
    ]
    assert late[2] < 3
    hub.fail({"mode": "status", "method": "GET", "path": "/alice/busy", "times": 99})
    (busy,) = check(hub, ("alice/busy", {}))
    hub.fail()
    assert busy[0] == "HubError"
    assert len(hub.requests()) == 2


def test_what_is_in_the_cache_is_not_asked_for(hub: Hub) -> None:
    code = f"from huggingface_hub import snapshot_download; snapshot_download({NAME!r})"
    hub.python(code, home="kept")
    folder = hub.folder / "kept/datasets/alice___my_photos"
    folder.mkdir(parents=True)
    calls = [(NAME, {}), ("alice/MyPhotos", {"kind": "dataset"}), ("mnist", {"kind": "dataset"})]
    hub.requests()
    *kept, missing = check(hub, *calls, home="kept", is_offline=True)
    assert [answer[:2] for answer in kept] == [["", ""], ["", ""]]
    assert missing[1].startswith("cannot load 'mnist': HF_HUB_OFFLINE is set, and it is not")
    assert hub.requests() == []


def test_a_hub_that_is_down_is_found_out_at_once(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub:
        hub.process.kill()
        hub.process.wait()
        (down,) = check(hub, (NAME, {}))
    said = f"there is no such folder here, and {hub.url} cannot be reached; check the network"
    assert down[:2] == ["HubError", f"cannot load {NAME!r}: {said}, then try again"]
    assert down[2] < 3
