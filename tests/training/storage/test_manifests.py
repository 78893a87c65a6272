"""Manifests: complete and typed, or there is no checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm_pipeline.training.storage.manifests import damage_named, parse_manifest, read_manifest

ENTRY = {"size": 3, "sha256": "0" * 64}
WHOLE = {"state.json": ENTRY, "model.safetensors": ENTRY}


@pytest.mark.parametrize(
    ("manifest", "named"),
    [
        ({}, "it lacks model.safetensors, state.json"),
        ({"state.json": ENTRY}, "it lacks model.safetensors"),
        ([], "it must be an object of JSON, got a list"),
        (True, "it must be an object of JSON, got a bool"),
        *(
            ({**WHOLE, name: ENTRY}, "it names")
            for name in ("../x", "/etc/passwd", "a/b", "..", ".", "", "manifest.json", ".hidden")
        ),
        *(({**WHOLE, name: ENTRY}, "it names") for name in ("a\\b", "C:x", "a\0b")),
        *(
            ({**WHOLE, "state.json": entry}, "of state.json it must say size and sha256")
            for entry in (
                None,
                {},
                {"size": 3},
                {**ENTRY, "size": -1},
                {**ENTRY, "size": True},
                {**ENTRY, "size": 3.0},
                {**ENTRY, "sha256": "0"},
                {**ENTRY, "sha256": None},
                {**ENTRY, "more": 1},
            )
        ),
    ],
)
def test_what_is_no_manifest_is_refused(manifest: Any, named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        parse_manifest(json.dumps(manifest).encode())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=rf"the checkpoint .* is damaged: manifest.json: {named}"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged: manifest\.json"):
        read_manifest(tmp_path)


def test_a_whole_manifest_is_given_back() -> None:
    assert parse_manifest(json.dumps(WHOLE).encode()) == WHOLE


def test_a_full_memory_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError), damage_named(tmp_path, "model.safetensors"):
        raise torch.OutOfMemoryError
