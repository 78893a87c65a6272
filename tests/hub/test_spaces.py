"""Spaces that show a model: what is in them, who sees them, and whose work they are not."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from helpers.hub_clients import Client
from helpers.hubs import Hub
from helpers.paths import PACKAGE
from helpers.pipelines import pipeline
from helpers.unets import make_tiny_unet

from ddpm_pipeline.cli.commands import main
from ddpm_pipeline.hub import space_files

FILES = {"README.md", "app.py", "requirements.txt"}
REQUIREMENT = f"ddpm_pipeline[app] @ git+https://git.example/alice/ddpm@{'0f' * 20}"
WITH_APP = ("--with_app", "--app_requirement", REQUIREMENT)
WRITE = """
import sys
from huggingface_hub import CommitOperationAdd, HfApi

name, path, text, sdk = sys.argv[1:]
api = HfApi()
api.create_repo(name, repo_type="space", space_sdk=sdk, exist_ok=True)
operation = CommitOperationAdd(path, text.encode())
api.create_commit(name, [operation], commit_message="by hand", repo_type="space")
"""
DELETE = """
import sys
from huggingface_hub import HfApi

HfApi().delete_file(sys.argv[2], sys.argv[1], repo_type="space")
"""
PUSH_APP = """
import sys
from ddpm_pipeline.hub import push_app

print(push_app(sys.argv[1], app_requirement=sys.argv[2]).url)
"""


@pytest.fixture
def hub(hub_and_client: tuple[Hub, Client]) -> Hub:
    return hub_and_client[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    pipeline(make_tiny_unet(), num_train_timesteps=10).save_pretrained(folder)
    (folder / "mine.txt").write_text("stays here")
    return folder


def metadata(readme: str) -> dict:
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", readme, re.DOTALL)[1])


def test_the_hub_is_told_what_to_start() -> None:
    files = {
        name: text.decode() for name, text in space_files("alice/digits", REQUIREMENT).items()
    }
    found = metadata(files["README.md"])
    assert (found["sdk"], found["app_file"]) == ("gradio", "app.py")
    assert found["models"] == ["alice/digits"]
    assert files["requirements.txt"] == f"{REQUIREMENT}\n"
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    gradio = found["sdk_version"].removesuffix(".0")
    assert f"gradio>={gradio},<7" in project["optional-dependencies"]["app"]
    assert found["python_version"] == project["requires-python"].removeprefix(">=")
    *_, call = ast.parse(files["app.py"]).body
    assert ast.unparse(call) == "run_as_space('alice/digits')"


@pytest.mark.parametrize("is_private", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_space_beside_the_model(hub: Hub, client: Client, model: Path, is_private: bool) -> None:
    name = f"alice/beside-{is_private}".lower()
    private = ["--private"] if is_private else []
    first = client.run("push", str(model), name, *WITH_APP, *private)
    assert first.code == 0
    space = f"spaces/{name}"
    assert hub.files(space).keys() == FILES | {".gitattributes", ".ddpm_pipeline.json"}
    for path, text in space_files(name, REQUIREMENT).items():
        assert hub.content(space, path) == text
    assert hub.repo(space)["private"] == hub.repo(name)["private"] == is_private
    commit = hub.repo(space)["branches"]["main"]
    assert first.log.splitlines()[-1] == f"{hub.url}/{space}/commit/{commit}"
    assert "app.py" not in hub.files(name)
    again = client.run("push", str(model), name, *WITH_APP)
    said = ["nothing has changed"] * 2
    assert [line.partition(":")[0] for line in again.log.splitlines()[-2:]] == said
    assert hub.num_commits(space) == 2


def test_one_of_the_users_own(hub: Hub, client: Client, model: Path) -> None:
    assert client.run("push", str(model), "unowned", *WITH_APP).code == 0
    expected = space_files("alice/unowned", REQUIREMENT)["app.py"]
    assert hub.content("spaces/alice/unowned", "app.py") == expected


def test_a_space_from_python_is_as_private_as_the_model(
    hub: Hub, client: Client, model: Path, tmp_path: Path
) -> None:
    script = tmp_path / "push_app.py"
    script.write_text(PUSH_APP)
    absent = client.run("secret", REQUIREMENT, script=str(script))
    assert absent.code == 1
    said = "cannot push to the space 'alice/secret': the Hub shows no model of this name"
    assert said in absent.log.splitlines()[-1]
    assert client.run("push", str(model), "secret", "--private").code == 0
    pushed = client.run("secret", REQUIREMENT, script=str(script))
    assert pushed.code == 0, pushed.log
    assert hub.repo("spaces/alice/secret")["private"] is True


def test_what_was_changed_there_stays(hub: Hub, client: Client, model: Path) -> None:
    name = "alice/changed"
    assert client.run("push", str(model), name, *WITH_APP).code == 0
    hub.python(WRITE, name, "app.py", "print('mine')", "gradio")
    for path in ("requirements.txt", "README.md"):
        hub.python(DELETE, name, path)
        outcome = client.run("push", str(model), name, *WITH_APP)
        assert outcome.code == 0
        assert f"app.py of the space '{name}' is kept as it was changed there" in outcome.log
        assert hub.content(f"spaces/{name}", "app.py") == b"print('mine')"
        assert hub.content(f"spaces/{name}", path) == space_files(name, REQUIREMENT)[path]


@pytest.mark.parametrize(
    ("path", "text", "sdk", "said"),
    [
        ("app.py", "print('mine')", "gradio", "it has app.py, which is not of this package; "),
        ("main.py", "print('mine')", "gradio", "it has main.py, which is not of this package; "),
        ("index.html", "<p>mine</p>", "static", "it has index.html, which is not of this "),
        ("Dockerfile", "FROM scratch", "docker", "it has Dockerfile, which is not of this "),
        ("README.md", "---\nsdk: static\n---\nsdk: gradio\n", "static", "its README.md does not"),
    ],
)
def test_somebodys_other_space_is_left_alone(
    hub: Hub, client: Client, model: Path, path: str, text: str, sdk: str, said: str
) -> None:
    name = f"alice/other-{path}".lower()
    hub.python(WRITE, name, path, text, sdk)
    before = hub.repo(f"spaces/{name}")
    outcome = client.run("push", str(model), name, *WITH_APP)
    assert outcome.code == 1
    assert f"cannot push to the space '{name}': {said}" in outcome.log.splitlines()[-1]
    assert hub.repo(f"spaces/{name}") == before
    assert "model_index.json" in hub.files(name)


def test_a_space_that_nobody_put_anything_into_is_used(
    hub: Hub, client: Client, model: Path
) -> None:
    name = "alice/still-empty"
    hub.python(
        WRITE, name, "README.md", "---\r\ntitle: mine\r\nsdk: 'gradio'\r\n---\r\n", "gradio"
    )
    assert client.run("push", str(model), name, *WITH_APP).code == 0
    assert hub.files(f"spaces/{name}").keys() >= FILES


def test_a_dry_run_lists_the_files_of_the_space(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(model), "alice/listed", "--dry_run", *WITH_APP]) == 0
    model_part, space_part = capsys.readouterr().out.split("and to the Space:\n")
    assert "model_index.json" in model_part
    *listed, last = space_part.splitlines()
    sizes = dict(reversed(line.split()) for line in listed)
    files = space_files("alice/listed", REQUIREMENT)
    assert sizes == {name: f"{len(text):,}" for name, text in files.items()}
    assert last.strip() == f"the Space installs {REQUIREMENT}"


def test_where_the_package_came_from_is_asked_for_before_the_push(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpm_pipeline.hub.requirements._installed", lambda: None)
    assert main(["push", str(model), "alice/listed", "--with_app"]) == 2
    error = capsys.readouterr().err
    assert "--app_requirement must say from where the Space installs this package" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--create_pr"], "--with_app shows the branch main of the model, got --create_pr"),
        (["--revision", "old"], "--with_app shows the branch main of the model, got --revision"),
        (["--app_requirement", "a b"], "--app_requirement must be one requirement, such as "),
        (["--app_requirement", "a\n-r b"], "--app_requirement must be one requirement, such as "),
    ],
)
def test_mistakes_are_one_line(
    model: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["push", str(model), "alice/listed", *WITH_APP, *options])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
