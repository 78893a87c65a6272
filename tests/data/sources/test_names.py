"""Names of sources that may be published."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from ddpm_pipeline.data.sources.names import source_name

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_source_is_called_by_no_more_than_the_last_part_of_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alice" / "digits").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert source_name("ylecun/mnist") == "ylecun/mnist"
    assert source_name("alice/digits") == "digits"  # there is such a folder here
    assert source_name(str(tmp_path / "alice" / "digits")) == "digits"
    assert source_name("alice/../alice/digits/") == "digits"
    assert source_name(".") == tmp_path.name
    assert source_name("/nowhere/at/all.npz") == "all.npz"
    assert source_name("~/nowhere/all.npz") == "all.npz"


def test_names_are_found_without_heavy_libraries() -> None:
    code = (
        "import sys\n"
        "from ddpm_pipeline.data.sources.names import source_name\n"
        "print(source_name('a/b'), {'torch', 'numpy', 'PIL', 'datasets'} & sys.modules.keys())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "a/b set()\n"
