"""Pushing a folder: one commit or none, whatever fails on the way, by LFS and by xet."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import diffusers
import pytest
from helpers.hubs import Hub, running_hub

from ddpm_pipeline import DDPMPipeline, DDPMScheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from diffusers import UNet2DModel

NAME = "alice/digits"
# Tells of each line of options what push_folder returned or raised, and how long it took.
PUSH = """
import json, sys, time
from huggingface_hub import CommitOperationAdd, HfApi
from ddpm_pipeline.hub.push import push_folder

def by_hand(repo_id, files=None, tag=None):
    operations = [CommitOperationAdd(path, text.encode()) for path, text in (files or {}).items()]
    if operations:
        HfApi().create_commit(repo_id, operations, commit_message="by hand")
    if tag:
        HfApi().create_tag(repo_id, tag=tag)
    return {}

for options in map(json.loads, sys.argv[1:] or sys.stdin):
    began = time.monotonic()
    try:
        answer = vars(push_folder(**options)) if "folder" in options else by_hand(**options)
    except Exception as error:
        answer = {"error": type(error).__name__, "said": str(error)}
    print(json.dumps({**answer, "seconds": time.monotonic() - began}), flush=True)
"""


@dataclass(frozen=True)
class ServedHub(Hub):
    """A Hub, and a process that pushes to it what it is asked to."""

    client: subprocess.Popen[str]

    def ask(self, **options: Any) -> Any:
        """What came of a push, or of what somebody does on the Hub by hand."""
        self.client.stdin.write(json.dumps({"repo_id": NAME, **options}) + "\n")
        self.client.stdin.flush()
        return json.loads(self.client.stdout.readline())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedHub]:
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        client = subprocess.Popen([sys.executable, "-c", PUSH], env=hub.environment(), **pipes)
        with client:
            yield ServedHub(**vars(hub), client=client)


@pytest.fixture
def hub(served: ServedHub) -> ServedHub:
    served.reset()
    return served


def pushes(hub: Hub, folder: Path, *options: dict[str, Any], **client: Any) -> list[Any]:
    """What came of pushes in a new process."""
    given = [json.dumps({"folder": str(folder), "repo_id": NAME, **each}) for each in options]
    return [json.loads(line) for line in hub.python(PUSH, *given, **client).stdout.splitlines()]


def push(hub: Hub, folder: Path, *, client: dict[str, Any] | None = None, **options: Any) -> Any:
    """What came of one push; in a new process if it is a client of its own kind."""
    if client is None and isinstance(hub, ServedHub):
        return hub.ask(folder=str(folder), **options)
    return pushes(hub, folder, options, **(client or {}))[0]


def save(make: Callable[..., UNet2DModel], folder: Path, *, seed: int = 0, **options: Any) -> Path:
    DDPMPipeline(make(seed=seed), DDPMScheduler()).save_pretrained(folder, **options)
    return folder


@pytest.fixture
def model(tiny_unet: Callable[..., UNet2DModel], tmp_path: Path) -> Path:
    """A saved pipeline."""
    return save(tiny_unet, tmp_path / "model")


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def pushed(hub: Hub, revision: str = "main") -> dict[str, bytes]:
    """What a branch holds, but for what is there in any case."""
    names = hub.files(NAME, revision).keys() - {".gitattributes", ".ddpm_pipeline.json"}
    return {name: hub.content(NAME, name, revision) for name in names}


@pytest.mark.parametrize("has_xet", [False, True])
def test_a_push_is_one_commit_and_a_second_sends_nothing(
    model: Path, tmp_path: Path, has_xet: bool
) -> None:
    client = {"has_xet": has_xet}
    with running_hub(tmp_path / "hub") as hub:
        first = push(hub, model, client=client, commit_message="Train")
        assert first["is_new"]
        assert pushed(hub) == contents(model)
        assert hub.repo(NAME)["branches"] == {"main": first["oid"]}
        assert hub.repo(NAME)["commits"][first["oid"]]["title"] == "Train"
        assert first["url"].endswith(f"/{NAME}/commit/{first['oid']}")
        ways = {r["path"].split("/")[1] for r in hub.requests()}
        assert ("_lfs" in ways) != has_xet

        again = push(hub, model, client=client)
        assert (again["is_new"], again["oid"]) == (False, first["oid"])
        assert hub.num_commits(NAME) == 2
        assert {r["method"] for r in hub.requests()} == {"GET"}


def test_only_what_differs_is_sent(hub: ServedHub, model: Path) -> None:
    push(hub, model)
    hub.requests()
    (model / "evaluation.json").write_text('{"fid": 1}')
    assert push(hub, model)["is_new"]
    requests = hub.requests()
    assert not [r for r in requests if "lfs" in r["path"]]
    assert pushed(hub) == contents(model)


def test_a_branch_is_made_and_a_tag_does_not_move(hub: ServedHub, model: Path) -> None:
    first = push(hub, model)
    (model / "evaluation.json").write_text("{}")
    branch = push(hub, model, revision="try/this")
    assert branch["revision"] == "try/this"
    assert hub.repo(NAME)["branches"] == {"main": first["oid"], "try/this": branch["oid"]}
    hub.ask(tag="v1")
    assert "'v1' is a tag" in push(hub, model, revision="v1")["said"]
    assert hub.repo(NAME)["tags"] == {"v1": first["oid"]}


def test_a_pull_request_leaves_the_branch_alone(hub: ServedHub, model: Path) -> None:
    first = push(hub, model)
    (model / "evaluation.json").write_text("{}")
    asked = push(hub, model, create_pr=True, client={"token": "hf_bob"})
    assert asked["revision"] == "refs/pr/1"
    assert asked["url"].endswith("/discussions/1")
    assert hub.repo(NAME)["branches"] == {"main": first["oid"]}
    assert "evaluation.json" in hub.files(NAME, "refs/pr/1")


def test_a_private_repository_and_a_name_without_its_owner(hub: ServedHub, model: Path) -> None:
    assert push(hub, model, repo_id="digits", private=True)["repo_id"] == NAME
    assert hub.repo(NAME)["private"]
    assert "it is private, and private=False" in push(hub, model, private=False)["said"]


@pytest.mark.parametrize("is_sharded_first", [False, True])
def test_weights_of_another_layout_leave_nothing_stale(
    hub: ServedHub, tiny_unet: Callable[..., UNet2DModel], tmp_path: Path, is_sharded_first: bool
) -> None:
    shards = {"max_shard_size": "20KB"}
    old = save(tiny_unet, tmp_path / "old", seed=1, **(shards if is_sharded_first else {}))
    new = save(tiny_unet, tmp_path / "new", seed=2, **({} if is_sharded_first else shards))
    (old / "evaluation.json").write_text("{}")
    push(hub, old)
    theirs = ("unet/diffusion_pytorch_model.bin", "notes.txt", "unet/notes.txt")
    hub.ask(files=dict.fromkeys(theirs, "theirs"))
    num_commits = hub.num_commits(NAME)
    push(hub, new)
    # Nothing says whose weights they are, but diffusers might take them for these.
    kept = {"notes.txt": b"theirs", "unet/notes.txt": b"theirs"}
    assert pushed(hub) == contents(new) | kept
    assert hub.num_commits(NAME) == num_commits + 1
    for name, content in pushed(hub).items():
        (tmp_path / "pulled" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pulled" / name).write_bytes(content)
    unet = diffusers.DDPMPipeline.from_pretrained(tmp_path / "pulled").unet.state_dict()
    expected = tiny_unet(seed=2).state_dict()
    assert all(unet[name].equal(expected[name]) for name in expected)


def test_files_of_an_earlier_push_go_unless_they_were_changed_since(
    hub: ServedHub, model: Path
) -> None:
    for name in ("bound.json", "evaluation.json"):
        (model / name).write_text("{}")
    push(hub, model)
    hub.ask(files={"bound.json": '{"theirs": 1}'})
    for name in ("bound.json", "evaluation.json"):
        (model / name).unlink()
    push(hub, model, is_whole=False)  # the weights stay, so what was measured still holds
    assert "evaluation.json" in pushed(hub)
    push(hub, model)
    assert pushed(hub) == contents(model) | {"bound.json": b'{"theirs": 1}'}


# Faults.


@pytest.mark.parametrize(
    "fault",
    [
        {"mode": "status", "method": "GET", "path": f"/api/models/{NAME}$"},
        {"mode": "status", "method": "POST", "path": "repos/create"},
        {"mode": "lose_answer", "method": "POST", "path": "repos/create"},
        {"mode": "status", "method": "POST", "path": "preupload"},
        {"mode": "status", "method": "PUT", "path": "_lfs"},
        {"mode": "truncate", "method": "PUT", "path": "_lfs", "after": 20_000},
        {"mode": "status", "method": "POST", "path": "/commit/"},
        {"mode": "drop", "method": "POST", "path": "/commit/"},
        {"mode": "lose_answer", "method": "POST", "path": "/commit/"},
    ],
    ids=lambda fault: f"{fault['mode']} {fault['path']}",
)
def test_a_fault_that_passes_leaves_one_whole_commit(
    hub: ServedHub, model: Path, fault: dict[str, Any]
) -> None:
    hub.fail(fault)
    result = push(hub, model)
    assert [r["fault"] for r in hub.requests() if "fault" in r] == [fault["mode"]]
    assert result["is_new"]
    assert hub.repo(NAME)["branches"] == {"main": result["oid"]}
    assert hub.num_commits(NAME) == 2
    assert pushed(hub) == contents(model)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/models/"),
        ("POST", "preupload"),
        ("PUT", "_lfs"),
        ("POST", "/commit/"),
        ("GET", "xet-write-token"),
    ],
)
def test_a_hang_ends_in_time_and_the_branch_is_whole(
    hub: ServedHub, model: Path, method: str, path: str
) -> None:
    client = {"has_xet": True} if "xet" in path else None
    first = push(hub, model, client=client)
    weights = model / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    hub.fail({"mode": "hang", "method": method, "path": path, "times": 99})
    result = push(hub, model, timeout=1, client=client)
    assert result["error"] == "HubTimeoutError"
    assert result["seconds"] < 5  # one silence; huggingface_hub would wait for six
    assert "\n" not in result["said"]
    assert hub.repo(NAME)["branches"] == {"main": first["oid"]}


@pytest.mark.slow
def test_an_upload_that_is_cut_every_time_leaves_the_branch_alone(
    hub: ServedHub, model: Path
) -> None:
    first = push(hub, model)
    weights = model / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    cut = {"mode": "truncate", "method": "PUT", "path": "_lfs", "after": 20_000, "times": 99}
    hub.fail(cut)
    result = push(hub, model)
    assert "cannot be reached" in result["said"]
    assert result["seconds"] < 60
    assert hub.repo(NAME)["branches"] == {"main": first["oid"]}


def test_a_server_that_is_down(model: Path, tmp_path: Path) -> None:
    with running_hub(tmp_path / "hub") as hub:
        hub.process.kill()
        hub.process.wait()
        result = push(hub, model)
    assert result["error"] == "HubError"
    assert result["said"] == (
        f"cannot push to 'alice/digits': {hub.url} cannot be reached; check the network, "
        "then try again"
    )
    assert result["seconds"] < 10


def test_an_answer_that_never_comes_after_the_commit_is_not_repeated(
    hub: ServedHub, model: Path
) -> None:
    """Every answer to the commit is lost, and the head after it can be read."""
    hub.fail({"mode": "lose_answer", "method": "POST", "path": "/commit/", "times": 99})
    result = push(hub, model)
    assert result["is_new"]
    assert hub.num_commits(NAME) == 2
    assert push(hub, model)["is_new"] is False


def begin_push(hub: ServedHub, folder: Path, *, until: str) -> subprocess.Popen[str]:
    """A push in a new process that waits for the answer to a request of this method and path."""
    method, path = until.split()
    hub.fail({"mode": "hang", "method": method, "path": path})
    hub.requests()
    options = json.dumps({"folder": str(folder), "repo_id": NAME})
    client = subprocess.Popen(
        [sys.executable, "-c", PUSH, options],
        env=hub.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    while not [r for r in hub.requests() if r.get("fault")]:
        assert client.poll() is None
        time.sleep(0.05)
    return client


def test_somebody_elses_commit_is_not_overwritten(hub: ServedHub, model: Path) -> None:
    push(hub, model)
    (model / "evaluation.json").write_text("{}")
    client = begin_push(hub, model, until="POST /commit/")
    hub.ask(files={"notes.txt": "theirs"})
    hub.fail()  # cuts what hangs: the push tries again, on a head that is not its own
    said = json.loads(client.communicate()[0])["said"]
    assert "the repository has changed in the meantime; try again" in said
    assert "evaluation.json" not in hub.files(NAME)
    assert push(hub, model)["is_new"]
    assert pushed(hub) == contents(model) | {"notes.txt": b"theirs"}


def test_a_client_killed_in_the_middle_of_an_upload(hub: ServedHub, model: Path) -> None:
    first = push(hub, model)
    weights = model / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    client = begin_push(hub, model, until="PUT _lfs")
    client.kill()
    client.communicate()
    assert hub.repo(NAME)["branches"] == {"main": first["oid"]}
    hub.fail()
    push(hub, model)
    assert pushed(hub) == contents(model)


# Mistakes.


@pytest.mark.parametrize(
    ("client", "said"),
    [
        (
            {"token": None},
            {
                "": "the token is missing or not valid; log in with `hf auth login`",
                '{"repo_id": "digits"}': "there is no token; log in with",
            },
        ),
        ({"token": "hf_wrong"}, {"": "the token is missing or not valid; log in with"}),
        ({"token": "hf_bob"}, {"": "may not do that; use one with the right to write"}),
        ({"is_offline": True}, {"": "HF_HUB_OFFLINE is set; unset it to use the network"}),
        (
            {},
            {
                '{"repo_id": "a/b/c"}': "has the form USER/NAME",
                '{"timeout": 0}': "timeout must be above 0 seconds, got 0",
                '{"files": []}': "files must name at least one file",
                '{"files": ["no.json"]}': "there is no file 'no.json'",
                '{"create_pr": true, "private": true}': "there is no such repository, or this",
            },
        ),
    ],
)
def test_mistakes_are_said_in_one_line(
    hub: ServedHub, model: Path, client: dict[str, Any], said: dict[str, str]
) -> None:
    mistakes = [json.loads(options or "{}") for options in said]
    for result, expected in zip(
        pushes(hub, model, *mistakes, **client), said.values(), strict=True
    ):
        assert expected in result["said"]
        assert "\n" not in result["said"]
        assert "hf_" not in result["said"]
    assert not [r for r in hub.requests() if "/commit/" in r["path"]]


def test_pickles_are_not_pushed(hub: ServedHub, model: Path) -> None:
    (model / "unet/diffusion_pytorch_model.bin").write_bytes(b"pickle")
    result = push(hub, model)
    assert result["error"] == "ValueError"
    assert "'unet/diffusion_pytorch_model.bin' is a pickle" in result["said"]
    assert hub.requests() == []


def test_what_does_not_belong_to_the_model_stays(hub: ServedHub, model: Path) -> None:
    for name in (
        "checkpoints/step-1/model.safetensors",
        "logs/a",
        ".env",
        "unet/.hidden",
        "a.txt",
    ):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("secret")
    push(hub, model)
    assert b"secret" not in set(pushed(hub).values())


def test_a_push_needs_no_torch(hub: ServedHub) -> None:
    code = "import sys, ddpm_pipeline.hub; print('torch' in sys.modules)"
    assert hub.python(code).stdout.strip() == "False"
