"""``ddpm push``: what goes to the Hub, what stays here, and whose words the card keeps."""

from __future__ import annotations

import getpass
import json
import re
import socket
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from ddpm_pipeline import DDPMPipeline, DDPMScheduler, TrainingConfig
from ddpm_pipeline.cli.commands import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusers import UNet2DModel
    from helpers.hub_clients import Client
    from helpers.hubs import Hub

NAME = "alice/digits"
BY_HAND = """
import json, sys
from huggingface_hub import CommitOperationAdd, HfApi

name, text = sys.argv[1:]
operation = CommitOperationAdd("README.md", text.encode())
HfApi().create_commit(name, [operation], commit_message="by hand")
"""


@pytest.fixture
def hub(hub_and_client: tuple[Hub, Client]) -> Hub:
    return hub_and_client[0]


@pytest.fixture
def model(tiny_unet: Callable[..., UNet2DModel], tmp_path: Path) -> Path:
    """A folder as a run leaves it, with what must stay here."""
    folder = tmp_path / "secret place" / "model"
    DDPMPipeline(tiny_unet(), DDPMScheduler()).save_pretrained(folder)
    config = TrainingConfig(train_data_dir=str(tmp_path / "secret place"), output_dir=str(folder))
    config.save_json(folder / "training_config.json")
    Image.new("L", (16, 16)).save(folder / "samples.png")
    for name in ("checkpoints/step-0000001/model.safetensors", "logs/events", ".env", "mine.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("stays here")
    return folder


def pushed(hub: Hub, name: str, revision: str = "main") -> dict[str, bytes]:
    return {path: hub.content(name, path, revision) for path in hub.files(name, revision)}


def test_it_takes_what_belongs_to_the_model(hub: Hub, client: Client, model: Path) -> None:
    name = "alice/taken"
    first = client.run("push", str(model), name, "--private", "--commit_message", "First")
    assert first.code == 0
    commit = hub.repo(name)["branches"]["main"]
    assert first.log.splitlines()[-1] == f"{hub.url}/{name}/commit/{commit}"
    assert hub.repo(name)["commits"][commit]["title"] == "First"
    assert hub.repo(name)["private"]
    assert pushed(hub, name).keys() == {
        ".ddpm_pipeline.json",
        ".gitattributes",
        "README.md",
        "model_index.json",
        "samples.png",
        "scheduler/scheduler_config.json",
        "training_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    }
    assert "samples.png" in hub.content(name, "README.md").decode()

    again = client.run("push", "--model", str(model), "--repo_id", name)
    assert again.log.splitlines()[-1].startswith("nothing has changed: ")
    branch = client.run("push", str(model), name, "--revision", "other")
    assert (again.code, branch.code) == (0, 0)
    assert hub.repo(name)["branches"] == {"main": commit, "other": commit}
    assert hub.num_commits(name) == 2


def test_a_dry_run_lists_what_would_be_sent_and_asks_nobody(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(model), "alice/listed", "--dry_run"]) == 0
    listed = dict(
        reversed(line.split(maxsplit=1)) for line in capsys.readouterr().out.splitlines()
    )
    sizes = {
        name: f"{(model / name).stat().st_size:,}"
        for name in (
            "model_index.json",
            "samples.png",
            "scheduler/scheduler_config.json",
            "training_config.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
        )
    }
    card = {"the card that is made of them": "README.md,"}
    assert listed == sizes | card
    (model / "samples.png").unlink()
    (model / "samples.png").symlink_to("/etc/hostname")
    for options in (["--dry_run"], []):
        assert main(["push", str(model), "alice/listed", *options]) == 2
        assert "'samples.png' in" in capsys.readouterr().err


def test_nothing_of_this_machine_gets_out(
    hub: Hub, client: Client, model: Path, tmp_path: Path
) -> None:
    outcome = client.run("push", str(model), "alice/clean")
    texts = [outcome.log, *(v.decode("latin1") for v in pushed(hub, "alice/clean").values())]
    user = rf"\b{re.escape(getpass.getuser())}\b(?!/)"
    host = rf"\b{re.escape(socket.gethostname())}\b"
    for secret in ("hf_alice", re.escape(str(tmp_path)), "/tmp/", "stays here", user, host):
        assert not [text for text in texts if re.search(secret, text)], secret
    assert json.loads(pushed(hub, "alice/clean")["training_config.json"])["train_data_dir"]


def test_words_on_the_card_are_kept(hub: Hub, client: Client, model: Path) -> None:
    (model / "README.md").write_text("# Mine\n\nWritten here.\n")
    assert client.run("push", str(model), NAME).code == 0
    first = hub.content(NAME, "README.md").decode()
    assert "Written here." in first

    (model / "README.md").write_text("# Mine\n\nWritten better.\n")
    assert client.run("push", str(model), NAME).code == 0
    second = hub.content(NAME, "README.md").decode()
    assert "Written better." in second
    assert "Written here." not in second

    hub.python(BY_HAND, NAME, second.replace("Written better.", "Written on the Hub."))
    Image.new("L", (8, 8)).save(model / "samples.png")
    outcome = client.run("push", str(model), NAME)
    assert outcome.code == 0
    assert "its text is kept" in outcome.log
    third = hub.content(NAME, "README.md").decode()
    assert third == second.replace("Written better.", "Written on the Hub.")
    assert (model / "README.md").read_text() == "# Mine\n\nWritten better.\n"
    again = client.run("push", str(model), NAME)  # the Hub's words are not taken for ours now
    assert again.log.splitlines()[-1].startswith("nothing has changed: ")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nowhere", NAME), 2, "there is no folder 'nowhere'"),
        (("EMPTY", NAME), 2, "/empty': no model_index.json"),
        (("MODEL",), 2, "missing: --repo_id"),
        (("MODEL", "bob/digits"), 1, "may not do that; use one with the right to write there"),
        (("MODEL", "a/b/c"), 2, "--repo_id must have the form USER/NAME or NAME, got 'a/b/c'"),
        (("MODEL", "bad name"), 2, "--repo_id must have the form USER/NAME or NAME, got 'bad"),
    ],
)
def test_mistakes_are_one_line(
    client: Client, model: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    empty = model.parent / "empty"
    empty.mkdir()
    folders = {"MODEL": str(model), "EMPTY": str(empty)}
    outcome = client.run("push", *(folders.get(a, a) for a in arguments))
    assert outcome.code == code
    assert said in outcome.log
    assert outcome.log.startswith("ddpm push: error: ")
    assert outcome.log.count("\n") == 1
