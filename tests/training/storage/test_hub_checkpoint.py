"""Going on from a checkpoint on the Hub."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.pushed_runs import WEIGHTS, arguments, everywhere, fresh, trained
from helpers.training_runs import outcome
from safetensors.torch import load, load_file

from ddpm_pipeline.training.storage.checkpoints import newest_checkpoint

if TYPE_CHECKING:
    from helpers.hub_clients import Client
    from helpers.hubs import Hub


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_damaged_checkpoint_on_the_hub_gives_way_to_the_newest_one_here(
    hub: Hub, client: Client, folder: Path
) -> None:
    repo = fresh("damaged")
    options = {"lr_scheduler": "constant", "hub_model_id": repo}
    pushed = trained(client, folder / "a", **options, max_train_steps=4, hub_strategy="checkpoint")
    assert pushed.code == 0, pushed.log
    options["push_to_hub"] = False
    assert trained(client, folder / "b", **options, max_train_steps=2).code == 0

    entry = hub.files(repo)["checkpoint/manifest.json"]
    kept = ("lfs", entry["sha256"]) if entry["sha256"] else ("git", entry["oid"])
    stored = hub.folder.joinpath("server", *kept)
    stored.write_bytes(stored.read_bytes().replace(b'"model.safetensors"', b'"other.safetensors"'))
    resumed = trained(
        client, folder / "b", **options, max_train_steps=6, resume_from_checkpoint="hub"
    )
    assert resumed.code == 0, resumed.log
    assert "manifest.json: it lacks model.safetensors; going on from the newest" in resumed.log
    assert f"going on from {folder / 'b' / 'run' / 'checkpoints' / 'step-0000002'}" in resumed.log
    nowhere = trained(
        client, folder / "c", **options, max_train_steps=6, resume_from_checkpoint="hub"
    )
    assert nowhere.code == 2
    assert "manifest.json: it lacks model.safetensors" in nowhere.log
    assert not list((folder / "c" / "run" / "checkpoints").glob("*"))


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
