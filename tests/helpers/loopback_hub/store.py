"""What a Hub holds: repositories whose commits are trees of files, and who may do what."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

__all__ = ["TOKENS", "Commit", "Entry", "HubError", "Repo", "Store"]

TOKENS = {"hf_alice": "alice", "hf_bob": "bob"}
ORGANISATIONS = {"acme": ["alice"]}
LFS_SUFFIXES = ["7z", "arrow", "bin", "bz2", "ckpt", "ftz", "gz", "h5", "joblib", "lfs.*"]
LFS_SUFFIXES += ["mlmodel", "model", "msgpack", "npy", "npz", "onnx", "ot", "parquet", "pb"]
LFS_SUFFIXES += ["pickle", "pkl", "pt", "pth", "rar", "safetensors", "tar", "tflite", "tgz"]
LFS_SUFFIXES += ["wasm", "xz", "zip", "zst"]
GIT_ATTRIBUTES = "".join(f"*.{s} filter=lfs diff=lfs merge=lfs -text\n" for s in LFS_SUFFIXES)
FIRST_README = "---\ntitle: Untitled\nsdk: {sdk}\napp_file: app.py\npinned: false\n---\n"


class HubError(Exception):
    """An answer that is an error: its status, what it says, and the code that the client maps."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        headers: dict[str, str] | None = None,
        **extra: str,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.headers, self.extra = headers or {}, extra


@dataclass(frozen=True)
class Entry:
    """A file in a tree: its git blob, or the pointer's and the SHA-256 if it is kept as LFS."""

    oid: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True)
class Commit:
    """A state of a repository."""

    parent: str | None
    tree: dict[str, Entry]
    title: str
    message: str
    author: str
    date: str


@dataclass
class Repo:
    """A repository; each kind of reference is a dict from names to commits."""

    private: bool
    created: str
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[str, str] = field(default_factory=dict)
    discussions: dict[int, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> str:
        """The commit that a branch, tag, pull request or beginning of a hash names."""
        revision = unquote(revision)
        for references in (self.branches, self.tags, self.pull_requests):
            if revision in references:
                return references[revision]
        if re.fullmatch(r"[0-9a-f]{7,40}", revision):
            for sha in self.commits:
                if sha.startswith(revision):
                    return sha
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def tree(self, revision: str) -> dict[str, Entry]:
        """The files at a revision."""
        return self.commits[self.resolve(revision)].tree

    def commit(
        self,
        parent: str | None,
        tree: dict[str, Entry],
        title: str,
        author: str,
        message: str = "",
    ) -> str:
        """Add a commit that no reference names yet."""
        sha = secrets.token_hex(20)
        self.commits[sha] = Commit(parent, tree, title, message, author, now())
        return sha


class Store:
    """All repositories, and their files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repos: dict[str, Repo] = {}
        self.lock = threading.RLock()
        self.xet_hashes: dict[str, str] = {}  # by SHA-256
        for name in ("git", "lfs", "cas"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Forget all repositories and what was uploaded for them."""
        self.repos.clear()
        for path in (self.folder / "lfs").iterdir():
            path.unlink()

    def put_blob(self, content: bytes) -> Entry:
        """Keep a regular file."""
        oid = blob_oid(content)
        self.blob_path(oid).write_bytes(content)
        return Entry(oid, len(content))

    def blob_path(self, oid: str) -> Path:
        """Where a regular file's content is."""
        return self.folder / "git" / oid

    def lfs_path(self, sha256: str) -> Path:
        """Where a large file's content is, or will be."""
        return self.folder / "lfs" / sha256

    def create(self, name: str, user: str, *, private: bool, sdk: str | None = None) -> None:
        """A new repository with its first commit; a Space's has a README.md for its sdk."""
        repo = Repo(private=private, created=now())
        tree = {".gitattributes": self.put_blob(GIT_ATTRIBUTES.encode())}
        if sdk is not None:
            tree["README.md"] = self.put_blob(FIRST_README.format(sdk=sdk).encode())
        repo.branches["main"] = repo.commit(None, tree, "initial commit", user)
        self.repos[name] = repo

    def readable(self, name: str, user: str | None) -> Repo:
        """A repository that the user may see; like the Hub, missing and private look alike."""
        repo = self.repos.get(name)
        if repo is None or (repo.private and not may_write(user, name)):
            raise HubError(401 if user is None else 404, "Repository not found", "RepoNotFound")
        return repo

    def writable(self, name: str, user: str | None) -> Repo:
        """A repository that the user may change."""
        repo = self.readable(name, user)
        if not may_write(user, name):
            status = 401 if user is None else 403
            raise HubError(status, "You don't have the rights to write to this repo")
        return repo


def may_write(user: str | None, name: str) -> bool:
    """Whether a user may write to a repository, or below a namespace that ends in a slash."""
    owner = name.removeprefix("spaces/").partition("/")[0]
    return user is not None and (user == owner or user in ORGANISATIONS.get(owner, []))


def blob_oid(content: bytes) -> str:
    """Git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_entry(sha256: str, size: int) -> Entry:
    """A large file, whose blob is the pointer to it."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return Entry(blob_oid(pointer.encode()), size, sha256)


def now() -> str:
    """The time as the Hub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
