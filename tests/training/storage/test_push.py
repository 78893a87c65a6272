"""Training that pushes to a Hub on loopback: what arrives, and that no fault costs training."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from helpers.hub_clients import running_client
from helpers.hubs import running_hub
from helpers.paths import EXAMPLES
from helpers.training_runs import outcome, tiny_config
from huggingface_hub import ModelCard
from safetensors.torch import load, load_file

from ddpm_pipeline import DDPMPipeline, TrainingConfig
from ddpm_pipeline.training.storage.checkpoints import adopt_checkpoint, newest_checkpoint
from ddpm_pipeline.training.storage.identity import differing_fields
from ddpm_pipeline.training.storage.push import check_access

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.hub_clients import Client, Outcome
    from helpers.hubs import Hub

REPO = "alice/blobs"
USER, PLACE = "zaphod", "heart-of-gold"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
METHODS = ("GET", "HEAD", "POST", "PUT")


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


def arguments(folder: Path, **options: Any) -> list[str]:
    """A tiny run on the command line, that pushes."""
    defaults = {"push_to_hub": True, "hub_model_id": REPO, "max_train_steps": 6}
    config = tiny_config(folder, **{**defaults, "hub_timeout": 30.0, **options})
    words = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value == field.default or value is None:
            continue
        flag = value is True and field.name != "rescale_betas_zero_snr"
        words += [f"--{field.name}"] if flag else [f"--{field.name}", str(value)]
    return words


def trained(client: Client, folder: Path, **options: Any) -> Outcome:
    return client.run("train", *arguments(folder, **options))


def fresh(name: str) -> str:
    """A repository of the test's own."""
    return f"alice/{name}"


def everywhere(mode: str, times: int = 10**6, **more: Any) -> list[dict[str, Any]]:
    return [
        {"mode": mode, "method": method, "path": "^/(?!_test)", "times": times, **more}
        for method in METHODS
    ]


# What arrives.


def test_the_model_arrives_with_its_card_and_nothing_else(
    hub: Hub, client: Client, folder: Path
) -> None:
    repo = fresh("whole")
    options = {"hub_strategy": "every_save", "save_model_steps": 2, "logger": "tensorboard"}
    done = trained(client, folder, hub_model_id=repo, **options)
    assert done.code == 0, done.log
    assert "was pushed in" in done.log
    files = hub.files(repo)
    assert files.keys() == {
        ".gitattributes",
        ".ddpm_pipeline.json",
        "README.md",
        "model_index.json",
        "samples.png",
        "scheduler/scheduler_config.json",
        "training_config.json",
        "training_record.json",
        "unet/config.json",
        WEIGHTS,
    }
    assert hub.content(repo, WEIGHTS) == (folder / "run" / WEIGHTS).read_bytes()
    assert hub.content(repo, "samples.png") == (folder / "run" / "samples.png").read_bytes()
    card = hub.content(repo, "README.md").decode()
    assert ModelCard(card).data.library_name == "diffusers"
    assert f'DDPMPipeline.from_pretrained("{repo}")' in card
    assert "6 updates of 4 images" in card
    assert not (folder / "run" / ".push").exists()
    titles = [c["title"] for c in hub.repo(repo)["commits"].values()]
    assert "Training step 6" in titles
    assert not hub.repo(repo)["private"]

    copy = folder / "copy"
    for name in files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(hub.content(repo, name))
    mine = DDPMPipeline.from_pretrained(folder / "run").unet.state_dict()
    theirs = DDPMPipeline.from_pretrained(copy).unet.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_same_command_again_pushes_nothing_new(hub: Hub, client: Client, folder: Path) -> None:
    repo = fresh("twice")
    assert trained(client, folder, hub_model_id=repo, hub_private=True).code == 0
    assert hub.repo(repo)["private"]
    first = hub.content(repo, WEIGHTS)
    assert trained(client, folder, hub_model_id=repo, hub_private=True).code == 0
    assert hub.content(repo, WEIGHTS) == first


def test_nothing_private_is_pushed(hub: Hub, client: Client, folder: Path) -> None:
    options = {"hub_strategy": "checkpoint", "logger": "tensorboard"}
    done = trained(client, folder, hub_model_id=fresh("private"), **options)
    assert done.code == 0, done.log
    assert list((folder / "run" / "logs").rglob("events*"))
    private = ["hf_alice", PLACE, USER, str(folder), str(Path(__file__).parent)]
    host = re.compile(rb"(?<![\w.-])" + re.escape(socket.gethostname().encode()) + rb"(?![\w.-])")
    stored = [p for kind in ("git", "lfs") for p in (hub.folder / "server" / kind).iterdir()]
    assert len(stored) > 20
    for path in stored:
        content = path.read_bytes()
        for word in private:
            assert word.encode() not in content, word
        is_text = b"\0" not in content
        assert not (is_text and host.search(content)), content[:200]
    for path in hub.files(fresh("private")):
        assert "events" not in path
        assert "log" not in path
    assert "hf_alice" not in done.log


def test_of_two_processes_the_main_one_pushes(hub: Hub, client: Client, folder: Path) -> None:
    repo = fresh("ranks")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    common["LOCAL_WORLD_SIZE"] = "2"
    options = {"hub_model_id": repo, "hub_strategy": "checkpoint", "max_train_steps": 5}
    words = ["train", *arguments(folder, **options)]
    pids = [client.start(*words, RANK=str(i), LOCAL_RANK=str(i), **common) for i in range(2)]
    ended = [client.wait(pid) for pid in pids]
    assert [e.code for e in ended] == [0, 0], ended[0].log + ended[1].log
    assert ["was pushed in" in e.log for e in ended] == [True, False]
    record = json.loads(hub.content(repo, "training_record.json"))
    assert (record["steps"], record["num_processes"]) == (5, 2)
    assert "accelerate launch --num_processes 2 examples/train.py" in (
        hub.content(repo, "README.md").decode()
    )
    assert json.loads(hub.content(repo, "checkpoint/state.json"))["step"] == 5


# Faults.


@pytest.mark.parametrize("mode", ["drop", "hang"])
def test_a_hub_that_is_down_or_hangs_costs_no_training(
    hub: Hub, client: Client, folder: Path, mode: str
) -> None:
    options = {"hub_strategy": "every_save", "save_model_steps": 2, "max_train_steps": 8}
    hub.fail(*everywhere(mode))
    timeout = 1.0 if mode == "hang" else 30.0
    failed = trained(client, folder, hub_model_id=fresh(mode), hub_timeout=timeout, **options)
    assert failed.code == 3, failed.log
    last = failed.log.strip().splitlines()[-1]
    assert last.startswith("ddpm train: error: what was trained is saved in ")
    assert "but is not on the Hub: " in last
    assert "`ddpm push` tries again" in last
    assert "Traceback" not in failed.log
    record = json.loads((folder / "run" / "training_record.json").read_text())
    assert record["steps"] == 8
    assert record["seconds"] < 4  # a push that hangs takes 1 s, one that is refused 3 s

    hub.fail()
    same = trained(client, folder, hub_model_id=fresh(mode), **options)
    assert same.code == 0, same.log
    # It only starts, finds all trained and pushes: what a process costs on this machine now.
    waited = failed.seconds - record["seconds"] - same.seconds
    assert waited < (timeout if mode == "hang" else 8)
    assert hub.content(fresh(mode), WEIGHTS) == (folder / "run" / WEIGHTS).read_bytes()


def test_what_fails_for_a_moment_is_tried_again(hub: Hub, client: Client, folder: Path) -> None:
    hub.fail({"mode": "status", "status": 503, "method": "POST", "path": "/commit/", "times": 1})
    done = trained(client, folder, hub_model_id=fresh("moment"))
    assert done.code == 0, done.log
    assert hub.content(fresh("moment"), WEIGHTS) == (folder / "run" / WEIGHTS).read_bytes()


def test_a_failed_push_is_made_up_for_by_the_next(hub: Hub, client: Client, folder: Path) -> None:
    repo = fresh("later")
    refused = {"mode": "status", "status": 400, "method": "POST", "path": "/commit/", "times": 1}
    hub.fail(refused)
    done = trained(
        client, folder, hub_model_id=repo, hub_strategy="every_save", save_model_steps=2
    )
    assert done.code == 0, done.log
    lines = [line for line in done.log.splitlines() if "was not pushed" in line]
    assert len(lines) == 1
    assert "the next save will be: cannot push to 'alice/later'" in lines[0]
    assert hub.content(repo, WEIGHTS) == (folder / "run" / WEIGHTS).read_bytes()


def test_the_script_exits_with_the_same_code(hub: Hub, client: Client, folder: Path) -> None:
    hub.fail(*everywhere("status", status=403))
    script = str(EXAMPLES / "train.py")
    done = client.run(*arguments(folder, max_train_steps=2), script=script)
    assert done.code == 3, done.log
    assert "pushing will fail unless this changes" in done.log
    assert (folder / "run" / "model_index.json").exists()


# Going on from the Hub.


def test_a_stopped_run_goes_on_from_the_hub_with_the_same_bits(
    hub: Hub, client: Client, folder: Path
) -> None:
    repo = fresh("resumed")
    options = {"max_train_steps": 40, "save_images_steps": 100, "push_to_hub": False}
    pushes = {**options, "push_to_hub": True, "hub_model_id": repo, "hub_strategy": "checkpoint"}
    assert trained(client, folder / "whole", **options).code == 0
    pid = client.start("train", *arguments(folder / "first", **pushes))
    deadline = time.monotonic() + 20
    while not list((folder / "first").glob("run/checkpoints/step-*")):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(pid, signal.SIGTERM)
    stopped = client.wait(pid)
    assert stopped.code == 0, stopped.log
    assert "stopped by SIGTERM" in stopped.log
    state = json.loads(hub.content(repo, "checkpoint/state.json"))
    assert 0 < state["step"] < 40
    weights = load(hub.content(repo, WEIGHTS))
    saved = load_file(folder / "first" / "run" / WEIGHTS)
    assert all(torch.equal(saved[name], weights[name]) for name in saved)

    resumes = {**pushes, "resume_from_checkpoint": "hub"}
    resumed = trained(client, folder / "second", **resumes)
    assert resumed.code == 0, resumed.log
    assert f"going on from {folder / 'second' / 'run' / 'checkpoints'}" in resumed.log
    whole, parts = (outcome(folder / name / "run") for name in ("whole", "second"))
    for group in ("tensors", "model"):
        assert all(torch.equal(whole[group][k], parts[group][k]) for k in whole[group])
    assert whole["metrics"] == parts["metrics"]
    assert not list((folder / "second" / "run" / "checkpoints").glob(".*"))
    state = json.loads(hub.content(repo, "checkpoint/state.json"))
    assert state["step"] == 40


def test_the_newer_of_two_checkpoints_counts_and_one_that_does_not_fit_is_refused(
    hub: Hub, client: Client, folder: Path
) -> None:
    repo = fresh("two")
    options = {"max_train_steps": 4, "lr_scheduler": "constant", "hub_model_id": repo}
    assert trained(client, folder, **options, hub_strategy="checkpoint").code == 0
    options |= {"push_to_hub": False, "resume_from_checkpoint": "hub"}
    newer = trained(client, folder, **{**options, "max_train_steps": 8})
    assert newer.code == 0, newer.log
    assert "going on from" in newer.log
    here = trained(client, folder, **{**options, "max_train_steps": 12})
    assert f"{folder / 'run' / 'checkpoints' / 'step-0000008'}" in here.log

    options |= {"hub_model_id": None, "resume_from_checkpoint": f"hub:{repo}@main"}
    refused = trained(client, folder / "other", **options, learning_rate=0.5)
    assert refused.code == 2
    assert "learning_rate: 0.001 → 0.5" in refused.log
    assert newest_checkpoint(folder / "other" / "run" / "checkpoints") is None


def test_without_the_hub_the_newest_checkpoint_here_counts(
    hub: Hub, client: Client, folder: Path
) -> None:
    options = {"push_to_hub": False, "max_train_steps": 4, "lr_scheduler": "constant"}
    assert trained(client, folder, **options).code == 0
    hub.fail(*everywhere("drop"))
    options |= {"max_train_steps": 8, "resume_from_checkpoint": "hub"}
    here = trained(client, folder, **options)
    assert here.code == 0, here.log
    assert "going on from the newest checkpoint here" in here.log
    nowhere = trained(client, folder / "other", **options)
    assert nowhere.code == 1
    assert "cannot load a checkpoint from 'alice/blobs'" in nowhere.log


def test_a_run_begins_where_its_repository_has_no_checkpoint(
    hub: Hub, client: Client, folder: Path
) -> None:
    repo = fresh("new")
    done = trained(client, folder, hub_model_id=repo, resume_from_checkpoint="hub")
    assert done.code == 0, done.log
    assert "there is no checkpoint in 'alice/new' on the Hub yet" in done.log
    other = {"push_to_hub": False, "hub_model_id": None, "resume_from_checkpoint": f"hub:{repo}"}
    refused = trained(client, folder / "other", **other)
    assert refused.code == 2
    assert "'alice/new' on the Hub holds no checkpoint" in refused.log
    other["resume_from_checkpoint"] = "hub:alice/nothing@v1"
    missing = trained(client, folder / "other", **other)
    assert missing.code == 1
    assert "cannot load a checkpoint from 'alice/nothing'" in missing.log


def test_a_checkpoint_does_not_take_the_place_of_another(folder: Path) -> None:
    for name, text in (("here", "{}"), ("fetched", "{} ")):
        path = folder / name / "step-0000002"
        path.mkdir(parents=True)
        (path / "state.json").write_text('{"step": 2}')
        (path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match="holds another checkpoint of the same step"):
        adopt_checkpoint(folder / "fetched" / "step-0000002", folder / "here")
    (folder / "here" / "step-0000002" / "manifest.json").write_text("damaged")
    target = adopt_checkpoint(folder / "fetched" / "step-0000002", folder / "here")
    assert (target / "manifest.json").read_text() == "{} "


# Options.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"push_to_hub": True}, "push_to_hub needs hub_model_id, as USER/NAME"),
        ({"hub_model_id": "digits"}, "hub_model_id must have the form USER/NAME, got 'digits'"),
        ({"hub_model_id": "a/b/c"}, "hub_model_id must have the form USER/NAME"),
        ({"hub_strategy": "always"}, "hub_strategy must be one of end, every_save, checkpoint"),
        ({"hub_timeout": 0}, "hub_timeout must be above 0"),
        (
            {"hub_strategy": "checkpoint", "checkpointing_steps": 0},
            "hub_strategy 'checkpoint' needs checkpointing_steps",
        ),
        ({"resume_from_checkpoint": "hub"}, "resume_from_checkpoint='hub' needs hub_model_id"),
        ({"resume_from_checkpoint": "hub:digits"}, "must have the form USER/NAME, got 'digits'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**options)


def test_where_a_run_is_pushed_to_does_not_make_it_another() -> None:
    plain = TrainingConfig(max_train_steps=1)
    pushing = plain.replace(
        push_to_hub=True,
        hub_model_id=REPO,
        hub_strategy="checkpoint",
        hub_private=True,
        hub_timeout=3.0,
        resume_from_checkpoint=f"hub:{REPO}@v1",
    )
    assert differing_fields(plain, pushing, step=0) == {}
    assert pushing.to_dict()["resume_from_checkpoint"] == f"hub:{REPO}@v1"
    assert TrainingConfig.from_dict(pushing.to_dict()) == pushing


def test_pushing_needs_the_hub() -> None:
    with pytest.raises(ValueError, match="push_to_hub needs the network, and HF_HUB_OFFLINE is"):
        check_access()  # conftest switches the Hub off


def test_pushing_without_a_token_is_refused_before_anything_is_deleted(
    client: Client, folder: Path
) -> None:
    precious = folder / "run" / "metrics.jsonl"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    (folder / "run" / "training_config.json").write_text("{}")
    done = client.run("train", *arguments(folder, overwrite_output_dir=True), HF_TOKEN="")
    assert done.code == 2, done.log
    assert "push_to_hub needs a token" in done.log
    assert precious.read_text() == "mine"
