"""Keys follow values and files, and are the same on every machine."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from ddpm_pipeline.common.keys import key_of, stat_key


def test_a_key_is_the_hash_of_json() -> None:
    text = json.dumps(["x", {"a": 1, "b": [2, None]}], sort_keys=True)
    assert key_of("x", {"b": [2, None], "a": 1}) == hashlib.sha256(text.encode()).hexdigest()[:32]
    assert len({key_of(), key_of(1), key_of("1"), key_of([1]), key_of(1, None)}) == 5


def test_the_key_of_files_follows_names_sizes_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"12")
    os.utime(path, ns=(10**18, 10**18))
    keys = [stat_key([path]), stat_key([path], "more")]
    monkeypatch.chdir(tmp_path)
    assert stat_key([Path("a.bin")]) == keys[0]
    path.write_bytes(b"123")
    os.utime(path, ns=(10**18, 10**18))
    keys.append(stat_key([path]))
    os.utime(path, ns=(10**18, 10**18 + 1))
    keys.append(stat_key([path]))
    keys.append(stat_key([path.rename(tmp_path / "b.bin")]))
    assert len(set(keys)) == 5
    with pytest.raises(FileNotFoundError):
        stat_key([path])
