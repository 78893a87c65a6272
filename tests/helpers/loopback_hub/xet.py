"""Large files by xet, in the store on disk that hf_xet brings for simulations.

That store is locked by the process that has it open, so that every token names a folder of its
own: an empty one to write to, a copy to read from.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.loopback_hub.store import Entry, HubError, Store

if TYPE_CHECKING:
    from helpers.loopback_hub.server import Request

__all__ = ["read_token", "readable_hash", "take_in", "write_token"]

WORD, HEADER = 48, 32
HAS_VERIFICATION, HAS_SHA256 = 1 << 31, 1 << 30


def write_token(request: Request, name: str, revision: str) -> None:
    access = request.store.readable if "create_pr" in request.query else request.store.writable
    access(name, request.user)
    send_token(request, new_folder(request.store, "cas", is_made=True))


def read_token(request: Request, name: str, revision: str) -> None:
    request.store.readable(name, request.user)
    folder = new_folder(request.store, "read")
    with request.store.lock:
        shutil.copytree(request.store.folder / "master", folder)
    send_token(request, folder)


def new_folder(store: Store, kind: str, *, is_made: bool = False) -> Path:
    folder = store.folder / kind / secrets.token_hex(6)
    if is_made:
        folder.mkdir(parents=True)
    return folder


def send_token(request: Request, folder: Path) -> None:
    url, expiry = f"local://{folder.resolve()}", int(time.time()) + 3600
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "xet"}
    headers["X-Xet-Token-Expiration"] = str(expiry)
    request.send(200, {"casUrl": url, "exp": expiry, "accessToken": "xet"}, headers)


def readable_hash(store: Store, file: Entry) -> str | None:
    """The hash by which a client reads a file through xet, if HUB_XET_READ asks for that."""
    return store.xet_hashes.get(file.sha256 or "") if os.environ.get("HUB_XET_READ") else None


def take_in(store: Store, sha256: str) -> None:
    """Find a file that some client wrote to its folder, and keep it."""
    for shard in (store.folder / "cas").glob("*/xet/xorbs/shards/*.mdb"):
        for file_hash, found in files_of_shard(shard.read_bytes()):
            if found == sha256:
                fetch(store, shard.parents[3], file_hash, sha256)
                store.xet_hashes[sha256] = file_hash
                return


def files_of_shard(data: bytes) -> Iterator[tuple[str, str]]:
    """(xet's hash, SHA-256) of the files in a shard of xet's metadata, which says both."""
    at = WORD
    while at + WORD <= len(data) and data[at : at + HEADER] != b"\xff" * HEADER:
        name, (flags, entries) = (
            data[at : at + HEADER],
            struct.unpack_from("<II", data, at + HEADER),
        )
        at += WORD + WORD * entries * (2 if flags & HAS_VERIFICATION else 1)
        if flags & HAS_SHA256:
            yield hexadecimal(name), hexadecimal(data[at : at + HEADER])
            at += WORD


def hexadecimal(hash_: bytes) -> str:
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", hash_))


def fetch(store: Store, source: Path, file_hash: str, sha256: str) -> None:
    """Read a file out of a client's folder, and write it to the one that readers get copies of."""
    import hf_xet

    copy = new_folder(store, "import")
    shutil.copytree(source, copy)
    aside = store.lfs_path(f"{sha256}.xet")
    session = hf_xet.XetSession()
    with session.new_file_download_group(endpoint=f"local://{copy.resolve()}") as group:
        group.start_download_file(hf_xet.XetFileInfo(file_hash, None), str(aside))
    if hashlib.sha256(aside.read_bytes()).hexdigest() != sha256:
        raise HubError(400, "xet content does not match sha256")
    aside.replace(store.lfs_path(sha256))
    shutil.rmtree(copy)
    master = store.folder / "master"
    master.mkdir(exist_ok=True)
    session = hf_xet.XetSession()
    with session.new_upload_commit(endpoint=f"local://{master.resolve()}") as upload:
        upload.start_upload_file(str(store.lfs_path(sha256)), sha256=sha256)
