"""Safetensors in folders whose names are no UTF-8."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ddpm_pipeline.common.odd_names import load_tensors, utf8_alias

NAMES = ["plain", os.fsdecode(b"caf\xe9")]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_tensors_are_read_in_folders_of_any_name(tmp_path: Path, name: str) -> None:
    save_file({"a": torch.arange(3)}, tmp_path / "a.safetensors")
    (tmp_path / name).mkdir()
    path = (tmp_path / "a.safetensors").rename(tmp_path / name / "a.safetensors")
    assert load_tensors(path)["a"].tolist() == [0, 1, 2]


def test_what_means_more_to_a_library_has_an_alias(tmp_path: Path) -> None:
    folder = tmp_path / "a::b"
    folder.mkdir()
    with utf8_alias(folder) as name:
        assert name == str(folder)
    with utf8_alias(folder, special=("::", "*")) as name:
        assert "::" not in name
        assert Path(name).samefile(folder)


def test_an_alias_is_the_folder_and_goes_afterwards(tmp_path: Path) -> None:
    with utf8_alias(tmp_path) as name:
        assert name == str(tmp_path)
    odd = tmp_path / NAMES[1]
    with utf8_alias(odd) as name:  # nothing is there, as with a name of the Hub
        assert name == str(odd)
    odd.mkdir()
    (odd / "file").write_text("inside")
    with utf8_alias(odd) as name:
        assert name.encode()
        assert Path(name, "file").read_text() == "inside"
    assert not Path(name).exists()
    assert (odd / "file").exists()
