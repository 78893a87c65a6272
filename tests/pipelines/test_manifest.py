"""Outputs that are taken: manifests of folders and of .npz files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from ddpm_pipeline.pipelines.manifest import check_manifest, check_not_foreign, npz_manifest


def test_a_folder_is_new_empty_or_ours(tmp_path: Path) -> None:
    check_not_foreign(tmp_path / "new")
    check_not_foreign(tmp_path)
    (tmp_path / ".sampling.json.1.writing").write_text("")  # by a process beside this one
    check_not_foreign(tmp_path)
    (tmp_path / "000000.png").write_text("")
    with pytest.raises(ValueError, match="is not empty and was not made by sample_images"):
        check_not_foreign(tmp_path)
    (tmp_path / "sampling.json").write_text("{}")
    check_not_foreign(tmp_path)


def test_an_archive_has_its_manifest_inside(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", b"")
    with pytest.raises(ValueError, match="exists and was not made by sample_images"):
        npz_manifest(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("sampling.json", '{"seed": 3}')
    assert npz_manifest(path) == {"seed": 3}
    path.write_text("text")
    with pytest.raises(ValueError, match="exists and was not made by sample_images"):
        npz_manifest(path)


def test_all_that_differs_is_named() -> None:
    check_manifest({"seed": 1}, {"seed": 1}, Path("out"))
    with pytest.raises(ValueError, match=r"'out' holds .*: eta None, now 1; seed 1, now 2"):
        check_manifest({"seed": 2, "eta": 1}, {"seed": 1}, Path("out"))
