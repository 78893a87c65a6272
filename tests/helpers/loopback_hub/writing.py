"""Answers to requests that change a repository."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from helpers.loopback_hub import xet
from helpers.loopback_hub.reading import check_signature, signature
from helpers.loopback_hub.store import Entry, HubError, Repo, Store, lfs_entry, may_write, now

if TYPE_CHECKING:
    from helpers.loopback_hub.server import Request

__all__ = ["commit", "create", "lfs_upload", "preupload"]

LFS_THRESHOLD = 10 * 1024 * 1024


def repo_name(request: Request, body: dict[str, Any]) -> str:
    folder = "spaces/" if body.get("type") == "space" else ""
    return f"{folder}{body.get('organization') or request.user}/{body['name']}"


def is_private(body: dict[str, Any]) -> bool:
    return body.get("visibility") == "private" or body.get("private") is True


def create(request: Request) -> None:
    body = request.json()
    if request.user is None:
        raise HubError(401, "Invalid username or password.")
    name = repo_name(request, body)
    if not may_write(request.user, name):
        message = "You don't have the rights to create a model under the namespace"
        raise HubError(403, f'{message} "{name.split("/")[0]}"')
    url = f"{request.base}/{name}"
    with request.store.lock:
        if name in request.store.repos:
            raise HubError(409, "You already created this model repo", url=url, id=name)
        if body.get("type") == "space" and body.get("sdk") not in {"gradio", "docker", "static"}:
            raise HubError(400, '"sdk" must be one of [gradio, docker, static]')
        sdk = body.get("sdk")
        request.store.create(name, request.user, private=is_private(body), sdk=sdk)
    request.send(200, {"url": url, "name": name, "id": name, "private": is_private(body)})


def delete(request: Request) -> None:
    name = repo_name(request, request.json())
    request.store.writable(name, request.user)
    del request.store.repos[name]
    request.send(200, {})


def settings(request: Request, name: str) -> None:
    body = request.json()
    repo = request.store.writable(name, request.user)
    if {"private", "visibility"} & body.keys():
        repo.private = is_private(body)
    request.send(200, {"private": repo.private})


def validate_yaml(request: Request) -> None:
    """The Hub's look at a card's metadata before it is committed."""
    match = re.match(r"\s*---\r?\n(.*?)\r?\n---", request.json()["content"], re.DOTALL)
    if match is None:
        warning = {"message": "empty or missing yaml metadata in repo card"}
        return request.send(200, {"errors": [], "warnings": [warning]})
    errors = [{"message": error} for error in metadata_errors(match[1])]
    return request.send(400 if errors else 200, {"errors": errors, "warnings": []})


def metadata_errors(text: str) -> list[str]:
    import yaml

    try:
        metadata = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        return [f"YAML parse error: {error}"]
    if not isinstance(metadata, dict):
        return ["metadata must be an object"]
    index = metadata.get("model-index", [])
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    return [
        f'"model-index[{i}].results[{k}].{key}" is required'
        for i, model in enumerate(index)
        for k, result in enumerate(model.get("results") or [])
        for key in ("task", "metrics")
        if key not in result
    ]


# Contents, before the commit that names them.


def preupload(request: Request, name: str, revision: str) -> None:
    """Which files go as LFS, and what is at their paths now."""
    body = request.json()
    access = request.store.readable if "create_pr" in request.query else request.store.writable
    files = access(name, request.user).tree(revision)
    patterns, ignored = lfs_patterns(request.store, files), (body.get("gitIgnore") or "").split()
    answers = []
    for file in body["files"]:
        path, there = file["path"], files.get(file["path"])
        is_large = file["size"] > LFS_THRESHOLD or matches(path, patterns)
        answer = {"path": path, "uploadMode": "lfs" if is_large else "regular"}
        answer["shouldIgnore"] = matches(path, ignored)
        answers.append(answer | ({"oid": there.sha256 or there.oid} if there else {}))
    request.send(200, {"files": answers})


def lfs_patterns(store: Store, files: dict[str, Entry]) -> list[str]:
    if ".gitattributes" not in files:
        return []
    text = store.blob_path(files[".gitattributes"].oid).read_text(encoding="utf-8")
    return [line.split()[0] for line in text.splitlines() if "filter=lfs" in line]


def matches(path: str, patterns: list[str]) -> bool:
    names = (path, path.rsplit("/", 1)[-1])
    return any(fnmatch.fnmatch(name, pattern) for name in names for pattern in patterns)


def lfs_batch(request: Request, name: str) -> None:
    body = request.json()
    request.store.writable(name, request.user)
    objects = []
    for asked in body["objects"]:
        sha256 = asked["oid"]
        entry = {"oid": sha256, "size": asked["size"]}
        if not request.store.lfs_path(sha256).exists():  # no actions for what is there already
            upload = f"{request.base}/_lfs/{sha256}?sig={signature(request, sha256)}"
            verify = f"{request.base}/{name}.git/info/lfs/objects/verify"
            entry["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
        objects.append(entry)
    answer = {"transfer": "basic", "objects": objects}
    request.send(200, answer, content_type="application/vnd.git-lfs+json")


def lfs_upload(request: Request, sha256: str) -> None:
    check_signature(request, sha256)
    path = request.store.lfs_path(sha256)
    aside = path.with_name(f"{sha256}.{secrets.token_hex(4)}")
    try:
        if receive(request, aside) != sha256:
            raise HubError(400, "sha256 mismatch")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    request.send(200, b"", {"ETag": f'"{sha256}"'}, "text/plain")


def receive(request: Request, path: Any) -> str:
    """Write the body to a file; its SHA-256. Cut in the middle if a fault says so."""
    digest, size = hashlib.sha256(), 0
    is_cut = request.fault is not None and request.fault.mode == "truncate"
    with path.open("wb") as file:
        for part in request.chunks():
            file.write(part)
            digest.update(part)
            size += len(part)
            if is_cut and size >= request.fault.after:
                raise ConnectionError("cut on demand")
    return digest.hexdigest()


def lfs_verify(request: Request, name: str) -> None:
    body = request.json()
    path = request.store.lfs_path(body["oid"])
    if not path.exists() or path.stat().st_size != body["size"]:
        raise HubError(404, "object not found")
    request.send(200, {})


# Commits and what names them.


def commit(request: Request, name: str, revision: str) -> None:
    lines = [json.loads(line) for line in request.read().splitlines() if line.strip()]
    is_pull_request = "create_pr" in request.query
    access = request.store.readable if is_pull_request else request.store.writable
    repo = access(name, request.user)
    header = next(line["value"] for line in lines if line["key"] == "header")
    if not header.get("summary"):
        raise HubError(400, "commit summary is required")
    with request.store.lock:
        references, head = branch_head(repo, unquote(revision))
        if not head.startswith(header.get("parentCommit") or ""):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.commits[head].tree)
        for line in lines:
            if line["key"] != "header":
                OPERATIONS[line["key"]](request.store, files, line["value"])
        message = header.get("description", "")
        sha = repo.commit(head, files, header["summary"], request.user, message)
        answer = {"success": True, "commitOid": sha, "hookOutput": ""}
        answer["commitUrl"] = f"{request.base}/{name}/commit/{sha}"
        if is_pull_request:
            number = add_pull_request(repo, header["summary"], sha)
            answer["pullRequestUrl"] = f"{request.base}/{name}/discussions/{number}"
        else:
            references[unquote(revision)] = sha
    request.send(200, answer)


def branch_head(repo: Repo, revision: str) -> tuple[dict[str, str], str]:
    references = repo.pull_requests if revision.startswith("refs/pr/") else repo.branches
    if revision not in references:
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return references, references[revision]


def add_file(store: Store, files: dict[str, Entry], value: dict[str, str]) -> None:
    files[value["path"]] = store.put_blob(base64.b64decode(value["content"]))


def add_large_file(store: Store, files: dict[str, Entry], value: dict[str, str]) -> None:
    sha256 = value["oid"]
    path = store.lfs_path(sha256)
    if not path.exists():
        xet.take_in(store, sha256)
    if not path.exists():
        raise HubError(400, f"LFS object {sha256} was not uploaded")
    files[value["path"]] = lfs_entry(sha256, path.stat().st_size)


def delete_file(store: Store, files: dict[str, Entry], value: dict[str, str]) -> None:
    if value["path"] not in files:
        raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
    del files[value["path"]]


def delete_folder(store: Store, files: dict[str, Entry], value: dict[str, str]) -> None:
    prefix = value["path"].rstrip("/") + "/"
    gone = [path for path in files if path.startswith(prefix)]
    if not gone:
        raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
    for path in gone:
        del files[path]


OPERATIONS = {
    "file": add_file,
    "lfsFile": add_large_file,
    "deletedFile": delete_file,
    "deletedFolder": delete_folder,
}


def add_pull_request(repo: Repo, title: str, sha: str) -> int:
    number = len(repo.pull_requests) + 1
    repo.pull_requests[f"refs/pr/{number}"] = sha
    repo.discussions[number] = title
    return number


def open_pull_request(request: Request, name: str) -> None:
    body = request.json()
    repo = request.store.readable(name, request.user)
    number = add_pull_request(repo, body["title"], repo.branches["main"])
    request.send(200, {"num": number, "pullRequest": body.get("pullRequest")})


def pull_request(request: Request, name: str, number: str) -> None:
    repo = request.store.readable(name, request.user)
    answer = {"num": int(number), "title": repo.discussions[int(number)], "status": "draft"}
    answer |= {"author": {"name": request.user}, "createdAt": now(), "isPullRequest": True}
    answer |= {"repo": {"name": name, "type": "model"}, "events": []}
    answer |= {"filesWithConflicts": [], "changes": {"base": "refs/heads/main"}}
    request.send(200, answer)


def tag(request: Request, name: str, target: str) -> None:
    """Name a revision (POST), or take the name away (DELETE)."""
    body = request.json()
    repo = request.store.writable(name, request.user)
    if request.command == "DELETE":
        if repo.tags.pop(unquote(target), None) is None:
            raise HubError(404, "Tag not found", "RevisionNotFound")
    elif body["tag"] in repo.tags:
        raise HubError(409, f"Tag reference exists already: {body['tag']}")
    else:
        repo.tags[body["tag"]] = repo.resolve(target)
    request.send(200, {})


def branch(request: Request, name: str, target: str) -> None:
    """Start a branch (POST), or delete it (DELETE)."""
    body = request.json()
    repo = request.store.writable(name, request.user)
    if request.command == "DELETE":
        repo.branches.pop(unquote(target), None)
    elif unquote(target) in repo.branches:
        raise HubError(409, "Reference already exists")
    else:
        repo.branches[unquote(target)] = repo.resolve(body.get("startingPoint") or "main")
    request.send(200, {})
