"""Names of the Hub in options: repositories, and where a checkpoint is in one.

    parse_hub_checkpoint("hub:alice/digits@v1", None)     of a repository at a revision
    check_repo_id("digits", "hub_model_id")               a ValueError: there is no owner
    check_license("Apache 2.0", "license")                a ValueError: it is called apache-2.0

They ask nobody, and cost nothing to import.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ddpm_pipeline.common import is_hub_name, is_repo_id

__all__ = ["HubCheckpoint", "check_license", "check_repo_id", "parse_hub_checkpoint"]


_WORD = "hub"
_LICENSE = re.compile(r"[a-z0-9]+([.+-][a-z0-9]+)*")


@dataclass(frozen=True)
class HubCheckpoint:
    """Where a checkpoint is.

    Arguments:
        repo_id: Of the repository.
        revision: Branch, tag or commit; None is main.
        is_own: Whether it is the run's own repository, which need not have one yet.
    """

    repo_id: str
    revision: str | None
    is_own: bool


def parse_hub_checkpoint(resume: str, hub_model_id: str | None) -> HubCheckpoint | None:
    """Read what ``resume_from_checkpoint`` says of the Hub.

    Arguments:
        resume: "hub" is the run's own repository, "hub:USER/NAME@REVISION" any; a folder of that
            name is "./hub".
        hub_model_id: The run's own repository.
    Returns:
        Where the checkpoint is; None if it is not on the Hub.
    Raises:
        ValueError: If it is not well formed, or "hub" comes without hub_model_id.
    """
    if resume == _WORD:
        if hub_model_id is None:
            raise ValueError("resume_from_checkpoint='hub' needs hub_model_id")
        return HubCheckpoint(hub_model_id, None, is_own=True)
    if not resume.startswith(f"{_WORD}:"):
        return None
    repo_id, _, revision = resume.removeprefix(f"{_WORD}:").partition("@")
    check_repo_id(repo_id, f"the repository in resume_from_checkpoint={resume!r}")
    return HubCheckpoint(repo_id, revision or None, is_own=False)


def check_license(license_name: str, name: str) -> None:
    """Refuse what cannot be one of the Hub's names of licences.

    Raises:
        ValueError: If it cannot.
    """
    if not _LICENSE.fullmatch(license_name):
        raise ValueError(
            f"{name} must be what the Hub calls a licence, such as apache-2.0, mit or cc-by-4.0, "
            f"got {license_name!r}"
        )


def check_repo_id(repo_id: str, name: str, *, needs_owner: bool = True) -> None:
    """Refuse what has not the form OWNER/NAME that the Hub asks for.

    Arguments:
        repo_id: A repository.
        name: What the message calls it.
        needs_owner: Whether a name alone, which is one of the token's user, is refused too.
    Raises:
        ValueError: If it has not.
    """
    if not (is_repo_id(repo_id) or (not needs_owner and is_hub_name(repo_id))):
        form = "USER/NAME" if needs_owner else "USER/NAME or NAME"
        raise ValueError(f"{name} must have the form {form}, got {repo_id!r}")
