"""Hostile and broken files, made of whole ones by a seeded generator."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

_VALUES = (
    None, True, -1, 0, 0.5, 10**7, 10**12, 10**30, 10**400, float("nan"), float("inf"), "", "x",
    "../x", "/etc/passwd", "a\x00b", "\ud800", "=1+1", "x" * 10_000, [], {}, [[]], [None],
    {"a": {}}, "<!-- ddpm_pipeline:end -->", "import os", ["os", "system"], 40 * [8],
)  # fmt: skip


def mutate(path: Path, generator: random.Random) -> str:
    """Change a file for the worse; say how."""
    kinds = [_flip, _cut, _insert, _empty]
    if path.suffix == ".json":
        kinds += 4 * [_value, _key] + [_deep, _other]
    kind = generator.choice(kinds)
    content = kind(path.read_bytes(), generator)
    path.write_bytes(content)
    return f"{kind.__name__.strip('_')} in {path.name}"


def _flip(content: bytes, generator: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(generator.choice((1, 8, 64)) if content else 0):
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def _cut(content: bytes, generator: random.Random) -> bytes:
    return content[: generator.randrange(len(content) + 1)]


def _insert(content: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(content) + 1)
    return content[:place] + generator.randbytes(generator.choice((1, 16, 4096))) + content[place:]


def _empty(content: bytes, generator: random.Random) -> bytes:
    return b""


def _deep(content: bytes, generator: random.Random) -> bytes:
    return generator.choice(("[", '{"a":')).encode() * 100_000


def _other(content: bytes, generator: random.Random) -> bytes:
    return json.dumps(generator.choice(_VALUES)).encode()


def _value(content: bytes, generator: random.Random) -> bytes:
    """Put another value in some place, at any depth."""
    return _changed(content, generator, lambda _: generator.choice(_VALUES))


def _key(content: bytes, generator: random.Random) -> bytes:
    """Take an entry away, or put one of another name beside it."""

    def change(value: object) -> object:
        if isinstance(value, dict) and value:
            key = generator.choice(sorted(value))
            other = str(generator.choice(_VALUES))
            return {k: v for k, v in value.items() if k != key} | {other: value[key]}
        return {}

    return _changed(content, generator, change)


def _changed(content: bytes, generator: random.Random, change: Any) -> bytes:
    try:
        values = json.loads(content)
    except ValueError:
        return b"{"
    place = generator.choice(list(_places(values)))
    if not place:
        return json.dumps(change(values)).encode()
    holder = values
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = change(holder[place[-1]])
    return json.dumps(values).encode()


def _places(values: object, here: tuple = ()) -> Any:
    """List all places in JSON values."""
    yield here
    pairs = values.items() if isinstance(values, dict) else ()
    pairs = enumerate(values[:8]) if isinstance(values, list) else pairs
    for key, value in pairs:
        yield from _places(value, (*here, key))
