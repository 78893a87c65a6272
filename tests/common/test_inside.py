"""Files that lie in a folder, and those that only seem to."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from ddpm_pipeline.common import check_inside, is_plain_name


@pytest.mark.parametrize("name", ["unet", "a b", "x.json", "日本"])
def test_plain_names(name: str) -> None:
    assert is_plain_name(name)


@pytest.mark.parametrize("name", [".", "..", "", ".x", "a/b", "/a", "a\\b", "C:", "a\0", None, 3])
def test_other_names(name: object) -> None:
    assert not is_plain_name(name)


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "token").write_text("secret")
    (tmp_path / "elsewhere").mkdir()
    (folder / "whole.json").write_text("{}")
    (folder / "inner.json").symlink_to("whole.json")
    (folder / "outer.json").symlink_to("../token")
    (folder / "folder").symlink_to(tmp_path / "elsewhere")
    (folder / "gone").symlink_to("/no/such/file")
    for file in ("whole.json", "inner.json"):
        check_inside(folder, file)
    for file in ("outer.json", "folder/x.json", "gone", "../token", str(tmp_path / "token")):
        with pytest.raises(ValueError, match="outside the folder; only what lies in it is sent"):
            check_inside(folder, file)


def test_a_folder_that_is_a_link_itself_is_the_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("a")
    (tmp_path / "link").symlink_to("real")
    check_inside(tmp_path / "link", "a")


def test_links_into_the_hubs_cache_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--alice--digits"
    snapshot = repository / "snapshots" / "0123"
    for folder in (snapshot, repository / "blobs"):
        folder.mkdir(parents=True)
    (repository / "blobs" / "abc").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    check_inside(snapshot, "config.json")
    (tmp_path / "hub" / "token").write_text("secret")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    for name, target in {"token.json": "../../../token", "main.json": "../../refs/main"}.items():
        (snapshot / name).symlink_to(target)
        with pytest.raises(ValueError, match="outside the folder"):
            check_inside(snapshot, name)
