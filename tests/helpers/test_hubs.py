"""The Hub that the tests use: the real client, by plain LFS and by xet, and faults on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers.hubs import running_hub

from ddpm_pipeline.common import http_library

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.hubs import Hub

USE = """
import os
from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError

api = HfApi()
api.create_repo("alice/m", private=True)
api.create_repo("alice/m", exist_ok=True)
assert api.whoami()["name"] == "alice"
weights = os.urandom(300_000)
files = {"unet/w.safetensors": weights, "unet/config.json": b"{}"}
files["README.md"] = b"---\\na: 1\\n---\\n"
operations = [CommitOperationAdd(path, content) for path, content in files.items()]
commit = api.create_commit("alice/m", operations, commit_message="first")
api.create_tag("alice/m", tag="v1")
api.create_branch("alice/m", branch="try/this")
paths = {entry.path for entry in api.list_repo_tree("alice/m", recursive=True)}
assert paths == {*files, ".gitattributes", "unet"}
folder = snapshot_download("alice/m", revision="v1")
assert open(f"{folder}/unet/w.safetensors", "rb").read() == weights
assert api.model_info("alice/m", revision="try/this").card_data["a"] == 1
assert [info.path for info in api.get_paths_info("alice/m", ["unet", "no"])] == ["unet"]
request = api.create_commit(
    "alice/m", [CommitOperationAdd("a.txt", b"a")], commit_message="asked", create_pr=True
)
assert request.pr_num == 1
assert api.model_info("alice/m").sha == commit.oid
for token in (False, "hf_bob"):
    try:
        HfApi(token=token).model_info("alice/m")
    except RepositoryNotFoundError:
        continue
    raise AssertionError(token)
"""


@pytest.mark.parametrize("has_xet", [False, True])
def test_the_real_client_uses_it(tmp_path: Path, has_xet: bool) -> None:
    with running_hub(tmp_path, reads_xet=has_xet) as hub:
        hub.python(USE, has_xet=has_xet)
        requests = hub.requests()
        assert hub.content("alice/m", "README.md") == b"---\na: 1\n---\n"
        assert hub.num_commits("alice/m") == 3
    assert not [request for request in requests if request.get("unknown")]
    ways = {"xet" for request in requests if "/xet-" in request["path"]}
    ways |= {"lfs" for request in requests if request["path"].startswith("/_lfs/")}
    assert ways == {"xet" if has_xet else "lfs"}


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("drop", "RemoteProtocolError"),
        ("lose_answer", "RemoteProtocolError"),
        ("status", "HfHubHTTPError"),
        ("hang", "ReadTimeout"),
    ],
)
def test_faults_come_as_often_as_asked(hub: Hub, mode: str, error: str) -> None:
    code = (
        f"import sys, {http_library().__name__} as httpx\n"
        "from huggingface_hub import HfApi, set_client_factory\n"
        "set_client_factory(lambda: httpx.Client(timeout=0.5))\n"
        "try: HfApi().create_repo('alice/m')\n"
        "except Exception as error: print(type(error).__name__)\n"
        "HfApi().create_repo('alice/m', exist_ok=True)"
    )
    hub.fail({"mode": mode, "method": "POST", "path": "repos/create"})
    assert hub.python(code).stdout.split() == [error]
    assert [request.get("fault") for request in hub.requests()] == [mode, None]


def test_an_upload_is_cut_in_the_middle(hub: Hub) -> None:
    code = (
        "import os\n"
        "from huggingface_hub import HfApi\n"
        "HfApi().create_repo('alice/m')\n"
        "HfApi().upload_file(path_or_fileobj=os.urandom(10**6), path_in_repo='a.pt', "
        "repo_id='alice/m')"
    )
    hub.fail({"mode": "truncate", "method": "PUT", "path": "_lfs", "after": 1000})
    hub.python(code)
    uploads = [request for request in hub.requests() if request["method"] == "PUT"]
    assert [request.get("status") for request in uploads] == [None, 200]
