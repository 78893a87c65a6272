"""Where decoded images are kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_pipeline.data.places import default_cache_dir, private_folder


@pytest.mark.parametrize(("given", "place"), [("/x/y", "/x/y"), ("~/images", "{home}/images")])
def test_a_place_of_ones_own(
    given: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", given)
    assert default_cache_dir() == Path(place.format(home=tmp_path))


def test_else_it_is_below_the_hubs_home(tmp_path: Path) -> None:
    """In a process of its own: the Hub's library reads its home when it is imported."""
    code = "from ddpm_pipeline.data import default_cache_dir as d; print(d())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"HF_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == f"{tmp_path}/ddpm_pipeline/images\n"


def test_a_folder_that_is_made_is_private_and_one_of_anybodys_is_refused(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "a" / "b")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o775)
    assert private_folder(folder).stat().st_mode & 0o777 == 0o775
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="anybody may write into it"):
        private_folder(folder)
