"""Training that pushes to a Hub on loopback: what arrives, and that no fault costs training."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.paths import EXAMPLES
from helpers.pushed_runs import PLACE, USER, WEIGHTS, arguments, everywhere, fresh, trained
from helpers.training_runs import tiny_config
from huggingface_hub import ModelCard

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.data import open_images
from ddpm_pipeline.training.storage import push
from ddpm_pipeline.training.storage.push import check_access

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.hub_clients import Client
    from helpers.hubs import Hub

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
        "training_images.safetensors",
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


@pytest.mark.parametrize("mode", [pytest.param("drop", marks=pytest.mark.slow), "hang"])
def test_a_hub_that_is_down_or_hangs_costs_no_training(
    hub: Hub, client: Client, folder: Path, mode: str
) -> None:
    options = {"hub_strategy": "every_save", "save_model_steps": 2, "max_train_steps": 8}
    options |= {"save_images_steps": 100, "checkpointing_steps": 100}  # no part of what is timed
    config = tiny_config(folder)  # whose images are decoded before anything is timed
    open_images(config.train_data_dir, resolution=config.resolution, cache_dir=config.cache_dir)
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


# Options.


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


@pytest.mark.parametrize("is_given_up", [False, True])
def test_a_push_that_was_given_up_says_nothing_after_the_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_given_up: bool,
) -> None:
    may_fail, has_ended = Event(), Event()

    def fails(*_: object, **__: object) -> None:
        assert may_fail.wait(20)
        raise OSError("no answer")

    monkeypatch.setattr(push, "push_folder", fails)
    monkeypatch.setattr(push.BackgroundPush, "_try_token", lambda _: None)
    (tmp_path / "model_index.json").write_text("{}")
    pushing = push.BackgroundPush(tmp_path, "alice/digits")
    monkeypatch.setattr(pushing, "_failed", ended(pushing._failed, has_ended))
    pushing.submit(8)
    if is_given_up:
        assert pushing.finish(0.01) == "it was not done after 0.01 s"
    may_fail.set()
    assert has_ended.wait(20)
    assert ("step 8 was not pushed" in caplog.text) == (not is_given_up)


def ended(call: Callable[..., None], event: Event) -> Callable[..., None]:
    """A call that tells when it has returned."""

    def run(*arguments: object) -> None:
        call(*arguments)
        event.set()

    return run
