"""Answers to requests that change nothing."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from helpers.loopback_hub import xet
from helpers.loopback_hub.store import ORGANISATIONS, Entry, HubError

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.loopback_hub.server import Request

__all__ = ["content", "info", "resolve", "tree"]


def nothing(request: Request) -> None:
    request.send(200, {})


def harnesses(request: Request) -> None:
    request.send(200, {"standardEnvVars": [], "harnesses": {}})


def whoami(request: Request) -> None:
    if request.user is None:
        raise HubError(401, "Invalid username or password.")
    user = request.user
    organisations = [name for name, users in ORGANISATIONS.items() if user in users]
    answer = {"type": "user", "name": user, "fullname": user, "isPro": False, "canPay": False}
    answer |= {"avatarUrl": "", "email": None, "emailVerified": True}
    answer["orgs"] = [{"type": "org", "name": n, "roleInOrg": "admin"} for n in organisations]
    token = {"displayName": "test", "role": "write"}
    answer["auth"] = {"type": "access_token", "accessToken": token}
    request.send(200, answer)


def info(request: Request, name: str, revision: str = "main") -> None:
    repo = request.store.readable(name, request.user)
    sha = repo.resolve(revision)
    files = repo.commits[sha].tree
    card = card_metadata(request, files)
    own = name.removeprefix("spaces/")
    answer = {"_id": name, "id": own, "modelId": own, "sha": sha}
    answer["author"] = own.partition("/")[0]
    answer |= {"lastModified": repo.commits[sha].date, "createdAt": repo.created}
    answer |= {"private": repo.private, "gated": False, "disabled": False}
    answer |= {"downloads": 0, "likes": 0, "tags": card.get("tags") or [], "cardData": card}
    has_blobs = bool(request.query.get("blobs"))
    answer["siblings"] = [sibling(path, file, has_blobs) for path, file in sorted(files.items())]
    shown = ("library_name", "pipeline_tag", "model-index")
    request.send(200, answer | {key: card[key] for key in shown if key in card})


def sibling(path: str, file: Entry, has_blobs: bool) -> dict[str, Any]:
    if not has_blobs:
        return {"rfilename": path}
    entry = {"rfilename": path, "size": file.size, "blobId": file.oid}
    if file.sha256:
        entry["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": 134}
    return entry


def card_metadata(request: Request, files: dict[str, Entry]) -> dict[str, Any]:
    """What stands between the dashes of README.md."""
    if "README.md" not in files:
        return {}
    import yaml

    text = request.store.blob_path(files["README.md"].oid).read_text(encoding="utf-8")
    match = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    return (yaml.safe_load(match[1]) if match else None) or {}


def tree(request: Request, name: str, revision: str, folder: str | None = None) -> None:
    files = request.store.readable(name, request.user).tree(revision)
    prefix = unquote(folder or "").strip("/")
    prefix = f"{prefix}/" if prefix else ""
    is_recursive = request.query.get("recursive", "").lower() == "true"
    entries, folders = [], set()
    for path, file in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        first, *rest = path.removeprefix(prefix).split("/")
        parents = ["/".join([first, *rest[:i]]) for i in range(len(rest))]
        folders |= {prefix + parent for parent in (parents if is_recursive else parents[:1])}
        if is_recursive or not rest:
            entries.append(file_entry(request, path, file))
    if prefix and not entries and not folders:
        raise HubError(404, "Not found", "EntryNotFound")
    request.send(200, [folder_entry(path) for path in sorted(folders)] + entries)


def folder_entry(path: str) -> dict[str, Any]:
    oid = hashlib.sha1(path.encode()).hexdigest()
    return {"type": "directory", "oid": oid, "size": 0, "path": path}


def file_entry(request: Request, path: str, file: Entry) -> dict[str, Any]:
    entry = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
    if file.sha256:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
    if xet_hash := xet.readable_hash(request.store, file):
        entry["xetHash"] = xet_hash
    return entry


def paths_info(request: Request, name: str, revision: str) -> None:
    asked = parse_qs(request.read().decode()).get("paths", [])
    files = request.store.readable(name, request.user).tree(revision)
    entries = [file_entry(request, path, files[path]) for path in asked if path in files]
    folders = {
        "/".join(path.split("/")[:i]) for path in files for i in range(1, path.count("/") + 1)
    }
    request.send(200, entries + [folder_entry(path) for path in asked if path in folders])


def references(request: Request, name: str) -> None:
    repo = request.store.readable(name, request.user)

    def listed(kind: str, commits: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": n, "ref": kind + n, "targetCommit": s} for n, s in commits.items()]

    answer = {"branches": listed("refs/heads/", repo.branches), "converts": []}
    answer["tags"] = listed("refs/tags/", repo.tags)
    if request.query.get("include_prs"):
        answer["pullRequests"] = listed("", repo.pull_requests)
    request.send(200, answer)


def history(request: Request, name: str, revision: str) -> None:
    repo = request.store.readable(name, request.user)
    sha: str | None = repo.resolve(revision)
    commits = []
    while sha:
        commit = repo.commits[sha]
        entry = {"id": sha, "title": commit.title, "message": commit.message}
        commits.append(entry | {"date": commit.date, "authors": [{"user": commit.author}]})
        sha = commit.parent
    request.send(200, commits)


def resolve(request: Request, name: str, revision: str, path: str) -> None:
    """A regular file's content, or where a large file's is."""
    repo = request.store.readable(name, request.user)
    sha = repo.resolve(revision)
    file = repo.commits[sha].tree.get(unquote(path))
    headers = {"X-Repo-Commit": sha}
    if file is None:
        raise HubError(404, "Entry not found", "EntryNotFound", headers=headers)
    if file.sha256 is None:
        headers["ETag"] = f'"{file.oid}"'
        return send_file(request, request.store.blob_path(file.oid), headers)
    if xet_hash := xet.readable_hash(request.store, file):
        headers["X-Xet-Hash"] = xet_hash
        token = f"{request.base}/api/models/{name}/xet-read-token/{sha}"
        headers["Link"] = f'<{token}>; rel="xet-auth"'
    # Under the other name of this host, so that the client sees a foreign one, as the real CDN is.
    signed = f"/_cdn/{file.sha256}?sig={signature(request, file.sha256)}"
    headers["Location"] = f"http://localhost:{request.server.server_port}{signed}"
    headers |= {"X-Linked-Size": str(file.size), "X-Linked-Etag": f'"{file.sha256}"'}
    headers["ETag"] = f'"{file.sha256}"'
    return request.send(302, b"", headers, "text/plain")


def signature(request: Request, sha256: str) -> str:
    """What makes the address of a large file's content valid."""
    return hashlib.sha256((sha256 + request.secret).encode()).hexdigest()[:16]


def check_signature(request: Request, sha256: str) -> None:
    if request.query.get("sig") != signature(request, sha256):
        raise HubError(403, "bad signature")


def content(request: Request, sha256: str) -> None:
    """A large file's content, from what plays the CDN."""
    check_signature(request, sha256)
    send_file(request, request.store.lfs_path(sha256), {"ETag": f'"{sha256}"'})


def send_file(request: Request, path: Path, headers: dict[str, str]) -> None:
    """A file or the range of it that was asked for; cut in the middle if a fault says so."""
    data = path.read_bytes()
    status, begin, end = 200, 0, len(data)
    if match := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "")):
        status, begin = 206, int(match[1])
        end = min(int(match[2] or end) + 1, end)
        if begin >= end:
            return request.send(416, {}, {"Content-Range": f"bytes */{len(data)}"})
        headers = headers | {"Content-Range": f"bytes {begin}-{end - 1}/{len(data)}"}
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"} | headers
    request.send_head(status, headers | {"Content-Length": str(end - begin)})
    if request.command == "HEAD":
        return None
    if request.fault and request.fault.mode == "truncate":
        request.wfile.write(data[begin : min(end, begin + request.fault.after)])
        return request.cut()
    request.wfile.write(data[begin:end])
    return None
