"""By which line a Space gets the package, of how this one was installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.paths import PACKAGE
from packaging.requirements import Requirement

from ddpm_pipeline.hub import space_requirement

COMMIT = "0f1e" * 10
GIT = {"vcs": "git", "requested_revision": "main", "commit_id": COMMIT}
ADDRESS = "https://git.example/alice/ddpm.git"
PINNED = f"ddpm_pipeline[app] @ git+{ADDRESS}@{COMMIT}"


def install(folder: Path, origin: dict | None, package: Path = PACKAGE) -> None:
    """Lay out what pip leaves: metadata, and the package beside it."""
    (folder / "ddpm_pipeline").symlink_to(package)
    info = folder / "ddpm_pipeline-7.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ddpm_pipeline\nVersion: 7.1\n")
    if origin is not None:
        (info / "direct_url.json").write_text(json.dumps(origin))


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (None, "ddpm_pipeline[app]==7.1"),
        ({"url": ADDRESS, "vcs_info": GIT}, PINNED),
        (
            {"url": ADDRESS, "vcs_info": GIT, "subdirectory": "py"},
            f"{PINNED}#subdirectory=py",
        ),
    ],
)
def test_the_origin_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: dict | None, line: str
) -> None:
    install(tmp_path, origin)
    monkeypatch.syspath_prepend(tmp_path)
    assert space_requirement() == line
    assert Requirement(line).extras == {"app"}
    assert space_requirement("ddpm_pipeline[app]==0.3") == "ddpm_pipeline[app]==0.3"


@pytest.mark.parametrize(
    "origin",
    [
        {"url": "file:///src/ddpm", "dir_info": {"editable": True}},
        {"url": "file:///src/ddpm", "dir_info": {}},
        {"url": "file:///src/ddpm", "vcs_info": GIT},
        {"url": "ssh://git@git.example/alice/ddpm", "vcs_info": GIT},
        {"url": "https://${USER}:${KEY}@git.example/alice/ddpm", "vcs_info": GIT},
        {"url": "https://git.example/ddpm.whl", "archive_info": {}},
    ],
    ids=str,
)
def test_what_a_space_cannot_install_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: dict
) -> None:
    install(tmp_path, origin)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"^app_requirement must say .* got none$"):
        space_requirement()


def test_another_copy_than_the_installed_one_is_of_no_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    install(tmp_path, None, tmp_path / "other")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"^app_requirement must say .* got none$"):
        space_requirement()


@pytest.mark.parametrize(
    "line", ["", "two words", "a==1\nb==2", "-r others.txt", "git+https://git.example/a", "a\x1b"]
)
def test_what_is_no_requirement_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"^app_requirement must be one requirement"):
        space_requirement(line)
