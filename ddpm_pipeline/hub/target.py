"""Where a push goes: a repository and one of its branches, made if they are missing.

target = find_target(HfApi(), "alice/digits", None, private=None, is_made=True)
target.tree(target.head())         its files, by their paths
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from huggingface_hub import HfApi, get_session, hf_hub_url
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from ddpm_pipeline.hub.client import httpx
from ddpm_pipeline.hub.errors import HubError
from ddpm_pipeline.hub.requests import patiently

__all__ = ["Kind", "Target", "find_target", "full_name", "is_repo_private"]

Kind = Literal["model", "space"]


@dataclass(frozen=True)
class Target:
    """A branch of a repository.

    Arguments:
        api: How to reach it, with the token.
        repo_id: OWNER/NAME.
        revision: The branch, or a pull request.
        kind: What the repository holds.
    """

    api: HfApi
    repo_id: str
    revision: str
    kind: Kind = "model"

    @property
    def url(self) -> str:
        """Its page on the Hub."""
        folder = "" if self.kind == "model" else f"{self.kind}s/"
        return f"{self.api.endpoint}/{folder}{self.repo_id}"

    def head(self) -> str:
        """Ask for the branch's newest commit."""
        where = {"revision": self.revision, "repo_type": self.kind}
        return patiently(lambda: self.api.repo_info(self.repo_id, **where)).sha

    def tree(self, head: str) -> dict[str, RepoFile]:
        """List the files of a commit."""

        def listed() -> dict[str, RepoFile]:
            entries = self.api.list_repo_tree(
                self.repo_id, revision=head, recursive=True, repo_type=self.kind
            )
            return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

        return patiently(listed)

    def text(self, head: str, path: str) -> str:
        """Read a file at a commit, past the cache, where nobody would look for it again."""
        where = {"revision": head, "endpoint": self.api.endpoint, "repo_type": self.kind}
        url = hf_hub_url(self.repo_id, path, **where)
        headers = build_hf_headers(token=self.api.token)

        def get() -> httpx.Response:
            response = get_session().get(url, headers=headers)
            hf_raise_for_status(response)
            return response

        return patiently(get).content.decode("utf-8")


def find_target(
    api: HfApi,
    repo_id: str,
    revision: str | None,
    *,
    private: bool | None,
    is_made: bool,
    kind: Kind = "model",
) -> Target:
    """Find a repository and its branch; make them if they are missing.

    Arguments:
        api: How to reach it.
        repo_id: OWNER/NAME, or NAME for one of the token's user.
        revision: The branch, "main" by default.
        private: Of a repository that is made.
        is_made: Whether to make what is missing.
        kind: What the repository holds; a Space is made for Gradio.
    Raises:
        HubError: If the revision is a tag, or private is not what the repository is.
    """
    repo_id = full_name(api, repo_id)
    is_private = is_repo_private(api, repo_id, kind)
    if is_private is None and is_made:
        sdk = {"space_sdk": "gradio"} if kind == "space" else {}
        how = {"private": private, "exist_ok": True, "repo_type": kind, **sdk}
        patiently(lambda: api.create_repo(repo_id, **how))
    elif None not in (is_private, private) and is_private != private:
        raise HubError(
            f"cannot push to {repo_id!r}: it is {'private' if is_private else 'public'}, and "
            f"private={private} is for a new repository; leave private out, or change the "
            "repository's settings"
        )
    target = Target(api, repo_id, revision or "main", kind)
    if revision is not None and not revision.startswith("refs/pr/"):
        _make_branch(target, is_made=is_made)
    return target


def full_name(api: HfApi, repo_id: str) -> str:
    """Give OWNER/NAME, also for the NAME of a repository of the token's user."""
    return repo_id if "/" in repo_id else f"{patiently(api.whoami)['name']}/{repo_id}"


def is_repo_private(api: HfApi, repo_id: str, kind: Kind = "model") -> bool | None:
    """Tell whether a repository is private; None if there is none, or none that may be seen."""
    try:
        return bool(patiently(lambda: api.repo_info(repo_id, repo_type=kind)).private)
    except RepositoryNotFoundError:
        return None


def _make_branch(target: Target, *, is_made: bool) -> None:
    references = patiently(lambda: target.api.list_repo_refs(target.repo_id))
    if target.revision in {tag.name for tag in references.tags}:
        raise HubError(
            f"cannot push to {target.repo_id!r}: revision {target.revision!r} is a tag, which "
            "does not move; push to a branch, then tag it"
        )
    if is_made and target.revision not in {branch.name for branch in references.branches}:
        make = target.api.create_branch
        patiently(lambda: make(target.repo_id, branch=target.revision, exist_ok=True))
