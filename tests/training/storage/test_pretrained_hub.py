"""A model on the Hub to start from: by name and revision, without a network, when it is gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.pushed_runs import WEIGHTS, arguments, everywhere, fresh, trained
from helpers.training_runs import assert_same, outcome
from helpers.unets import make_tiny_unet
from safetensors.torch import load_file

from ddpm_pipeline import DDPMPipeline, DDPMScheduler

if TYPE_CHECKING:
    from helpers.hub_clients import Client
    from helpers.hubs import Hub

UPLOAD = """
import sys
from huggingface_hub import HfApi

repo, first, second = sys.argv[1:]
api = HfApi()
api.create_repo(repo)
api.upload_folder(repo_id=repo, folder_path=first)
api.create_tag(repo, tag="v1")
api.upload_folder(repo_id=repo, folder_path=second)
"""
DELETE = "import sys; from huggingface_hub import HfApi; HfApi().delete_repo(sys.argv[1])"


def run_script(client: Client, folder: Path, code: str, *words: object) -> None:
    script = folder / "script.py"
    script.write_text(code)
    done = client.run(*map(str, words), script=str(script))
    assert done.code == 0, done.log


def uploaded(client: Client, folder: Path, name: str) -> tuple[str, list[Path]]:
    """A repository with a model under the tag v1 and another one on main, and both in folders."""
    repo, folders = fresh(name), [folder / "first", folder / "second"]
    for seed, place in enumerate(folders):
        pipe = DDPMPipeline(make_tiny_unet(seed=seed), DDPMScheduler(num_train_timesteps=20))
        pipe.save_pretrained(place)
    run_script(client, folder, UPLOAD, repo, *folders)
    return repo, folders


def options(repo: str, **more: object) -> dict[str, object]:
    own = {"pretrained_model_name_or_path": repo, "model_config_name_or_path": None}
    return {**own, "push_to_hub": False, "hub_model_id": None, "random_flip": False, **more}


def same_weights(run: Path, folder: Path) -> bool:
    found, expected = (load_file(place / WEIGHTS) for place in (run, folder))
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in found
    )


@pytest.mark.slow
def test_a_name_and_a_revision(client: Client, folder: Path) -> None:
    repo, (first, second) = uploaded(client, folder, "by-name")
    for number, (revision, model) in enumerate([("v1", first), (None, second)]):
        place = folder / str(number)
        more = options(repo, max_train_steps=0, pretrained_revision=revision)
        done = trained(client, place, **more)
        assert done.code == 0, done.log
        at = " at v1" if revision else ""
        assert f"{repo} of the Hub{at}\n" in done.log
        assert same_weights(place / "run", model)
        base = json.loads((place / "run/training_record.json").read_text())["base"]
        assert base == {"name": repo, "hub": True} | ({"revision": "v1"} if revision else {})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_model_that_has_gone_stops_no_resume(client: Client, hub: Hub, folder: Path) -> None:
    repo, _ = uploaded(client, folder, "gone")
    more = options(repo, max_train_steps=30, checkpointing_steps=2)
    assert trained(client, folder / "whole", **more).code == 0
    pid = client.start("train", *arguments(folder / "killed", **more))
    run, deadline = folder / "killed" / "run", time.monotonic() + 60
    while not list(run.glob("checkpoints/step-*")):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    assert client.wait(pid).code == -signal.SIGKILL
    run_script(client, folder, DELETE, repo)
    shutil.rmtree(hub.folder / "home" / "hub")
    resumed = trained(client, folder / "killed", **more)
    assert resumed.code == 0, resumed.log
    assert "going on from" in resumed.log
    assert_same(outcome(run), outcome(folder / "whole" / "run"))
    for name in ("scheduler/scheduler_config.json", "unet/config.json"):
        assert (run / name).read_bytes() == (folder / "whole/run" / name).read_bytes()
    base = json.loads((run / "training_record.json").read_text())["base"]
    assert base == {"name": repo, "hub": True}
    refused = trained(client, folder / "new", **more)
    assert refused.code == 1
    (line,) = refused.log.strip().splitlines()
    assert repo in line


def test_without_a_network_one_line_says_so(client: Client, hub: Hub, folder: Path) -> None:
    hub.fail(*everywhere("drop"))
    done = trained(client, folder, **options(fresh("anything"), max_train_steps=2))
    assert done.code == 1
    (line,) = done.log.strip().splitlines()
    assert "cannot load 'alice/anything'" in line
    assert "cannot be reached" in line
