"""``push_folder``: a model's files to the Hub in one commit, or not at all.

    push_folder("model", "alice/digits", commit_message="Train longer")

The commit adds what differs from the branch's head and deletes what would be stale beside it:
weights that the folder does not have (diffusers prefers shards, also old ones, to a single file),
and files of an earlier push that are gone here. Other people's files are never touched.

A commit names the head that it was planned for, and the Hub refuses it on any other. It can be
repeated, therefore, when its answer is lost, and never overwrites somebody else's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_session,
)
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from ddpm_pipeline.hub.client import httpx, is_xet_available
from ddpm_pipeline.hub.errors import (
    HubError,
    HubTimeoutError,
    SilenceError,
    explained,
    is_transient,
)
from ddpm_pipeline.hub.files import (
    PushPlan,
    checked_contents,
    model_files,
    plan_push,
)
from ddpm_pipeline.hub.present import CARD, Chosen, Present, PresentCard
from ddpm_pipeline.hub.requests import PAUSES, REQUEST_TIMEOUT, patiently, time_limit
from ddpm_pipeline.hub.target import Kind, Target, find_target

__all__ = ["PushOptions", "PushResult", "push_contents", "push_folder"]


@dataclass(frozen=True)
class PushResult:
    """Where a push is.

    Arguments:
        url: Page of the commit, or of the pull request.
        oid: The commit; the head that was there already if nothing changed.
        is_new: False if the repository held all of it already, so that nothing was committed.
        repo_id: The repository, with its owner.
        revision: The branch, or the pull request.
    """

    url: str
    oid: str
    is_new: bool
    repo_id: str
    revision: str


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """Options of every push: of ``push_folder``, ``push_model`` and ``pipe.push_to_hub``."""

    revision: str | None = None
    """Branch, made if it is missing; "main" by default."""
    private: bool | None = None
    """Whether a repository that is made is private; as its owner's settings say by default."""
    commit_message: str | None = None
    """Title of the commit."""
    token: str | bool | None = None
    """As huggingface_hub takes it; that of the login by default."""
    create_pr: bool = False
    """Open a pull request instead of a commit to the branch."""
    timeout: float = REQUEST_TIMEOUT
    """Seconds of silence after which a request is given up."""

    @classmethod
    def names(cls) -> list[str]:
        """List the options."""
        return [field.name for field in fields(cls)]

    @classmethod
    def given_to(cls, function: str, options: dict[str, Any]) -> PushOptions:
        """Collect the options that a function was called with.

        Raises:
            TypeError: If there is no such option; names the function and those that there are.
        """
        for name in options:
            if name not in cls.names():
                known = ", ".join(cls.names())
                raise TypeError(f"{function} has no option {name!r}; there are {known}")
        return cls(**options)


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    files: Sequence[str] | None = None,
    is_whole: bool = True,
    card: Callable[[PresentCard], str] | None = None,
    **options: object,
) -> PushResult:
    """Push files of a folder in one commit, if any of them differs from what is there.

    The repository, and the branch that revision names, are made if they are missing.

    Arguments:
        folder: Where the files are.
        repo_id: OWNER/NAME, or NAME for one of the token's user.
        files: Paths in the folder; ``model_files(folder)`` by default.
        is_whole: Whether the files are all there is of the model. If not, files of an earlier
            push that are not among them stay as long as the weights do.
        card: Makes README.md from the one that is there; the folder's own is pushed otherwise.
            One that people changed on the Hub stays theirs.
        options: Those of ``PushOptions``.
    Returns:
        Where it is.
    Raises:
        TypeError: If there is no such option.
        ValueError: If an argument is not allowed, or a file is a pickle.
        FileNotFoundError: If a file is missing.
        HubError: If the push failed; the branch is as it was, or as it would be after the push
            if only the last answer was lost. HubTimeoutError after a silence.
    """
    asked = PushOptions.given_to("a push", options)
    contents = checked_contents(Path(folder), model_files(folder) if files is None else files)

    def chosen(present: Present) -> Chosen:
        if card is None:
            return Chosen(contents)
        found = present.card()
        return Chosen(
            contents | {CARD: card(found).encode()}, theirs=() if found.is_ours else (CARD,)
        )

    return push_contents(chosen, repo_id, asked, is_whole=is_whole)


def push_contents(
    choose: Callable[[Present], Chosen],
    repo_id: str,
    asked: PushOptions,
    *,
    kind: Kind = "model",
    is_whole: bool = True,
) -> PushResult:
    """Push what is chosen when it is known what is there, in one commit or not at all.

    Arguments:
        choose: Chooses the files.
        repo_id, is_whole: As for ``push_folder``.
        asked: How.
        kind: What the repository holds.
    Raises:
        HubError: As ``push_folder``.
    """
    api = HfApi(token=asked.token)
    message = asked.commit_message or "Push with ddpm_pipeline"
    known = {"revision": asked.revision, "token": asked.token}
    action = "push to" if kind == "model" else f"push to the {kind}"
    with explained(action, repo_id, **known), time_limit(asked.timeout):
        target = find_target(
            api,
            repo_id,
            asked.revision,
            private=asked.private,
            is_made=not asked.create_pr,
            kind=kind,
        )
        present = Present.of(target)
        chosen = choose(present)
        plan = plan_push(
            chosen.contents,
            present.tree,
            present.head,
            present.record,
            is_whole=is_whole,
            theirs=chosen.theirs,
        )
        if not plan.additions and not plan.deletions:
            url = f"{target.url}/tree/{quote(target.revision)}"
            return PushResult(url, plan.head, False, target.repo_id, target.revision)
        commit = _commit(target, plan, message, create_pr=asked.create_pr)
    return PushResult(
        commit.pr_url or commit.commit_url,
        commit.oid,
        True,
        target.repo_id,
        commit.pr_revision or target.revision,
    )


def _commit(target: Target, plan: PushPlan, message: str, *, create_pr: bool) -> CommitInfo:
    """Upload what is new, then commit; again if it failed for a moment and did not land."""
    additions = [CommitOperationAdd(name, content) for name, content in plan.additions.items()]
    operations = [*additions, *(CommitOperationDelete(name) for name in plan.deletions)]
    _upload(target, additions, create_pr=create_pr)
    pauses = iter(PAUSES)
    while True:
        try:
            return target.api.create_commit(
                target.repo_id,
                operations,
                commit_message=message,
                revision=target.revision,
                create_pr=create_pr,
                parent_commit=plan.head,
                repo_type=target.kind,
            )
        except SilenceError as error:
            raise HubTimeoutError(_unknown(target, create_pr=create_pr)) from error
        except (httpx.TransportError, HfHubHTTPError) as error:
            if create_pr and _is_lost(error):
                raise HubError(_unknown(target, create_pr=True)) from error
            if landed := _landed(target, plan, message):
                return landed
            pause = next(pauses, None)
            if pause is None or not is_transient(error):
                raise
            time.sleep(pause)


def _upload(target: Target, additions: list[CommitOperationAdd], *, create_pr: bool) -> None:
    """Send large files, one after another: a thread of its own would not know the time limit."""
    has_weights = any(a.path_in_repo.endswith(".safetensors") for a in additions)
    if has_weights and is_xet_available():
        # hf_xet asks this by itself and may wait for minutes; a Hub that hangs shall be seen here.
        url = f"{target.api.endpoint}/api/models/{target.repo_id}/xet-write-token/"
        url += quote(target.revision, safe="") + ("?create_pr=1" if create_pr else "")
        headers = build_hf_headers(token=target.api.token)
        patiently(lambda: hf_raise_for_status(get_session().get(url, headers=headers)))
    for addition in additions:
        target.api.preupload_lfs_files(
            target.repo_id,
            [addition],
            revision=target.revision,
            create_pr=create_pr,
            free_memory=False,
            repo_type=target.kind,
        )


def _landed(target: Target, plan: PushPlan, message: str) -> CommitInfo | None:
    """Look whether the branch now holds what was planned; give its commit if it does."""
    head = target.head()
    tree = target.tree(head)
    has_all = all(name in tree and h.are_of(tree[name]) for name, h in plan.files.items())
    if head == plan.head or not has_all or tree.keys() & set(plan.deletions):
        return None
    url = f"{target.url}/commit/{head}"
    return CommitInfo(commit_url=url, commit_message=message, commit_description="", oid=head)


def _unknown(target: Target, *, create_pr: bool) -> str:
    where = f"cannot tell whether the push to {target.repo_id!r} arrived: its answer was lost"
    if create_pr:
        return f"{where}; look for a new pull request before pushing again"
    return f"{where}; push again, which does nothing if it did"


def _is_lost(error: Exception) -> bool:
    """Tell whether the Hub may have done what it gave no answer to."""
    return is_transient(error) and not isinstance(error, httpx.ConnectError)
