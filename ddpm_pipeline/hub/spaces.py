"""``push_app``: a Space of the Hub that shows a pushed model on the page of ``ddpm app``.

    push_app("alice/digits")            .../spaces/alice/digits

A Space has a name of its own beside models, so that it is called as its model is. It holds three
small files, which are made here: README.md, by which the Hub knows what to start, requirements.txt
and app.py, which calls this package.

Files are replaced only in a Space that an earlier push wrote its record into, or that holds
nothing yet but what the Hub itself puts into a new one.
"""

from __future__ import annotations

import logging
import re
from functools import partial

from huggingface_hub import HfApi

from ddpm_pipeline.common import printable
from ddpm_pipeline.hub.errors import HubError, explained
from ddpm_pipeline.hub.present import CARD, Chosen, Present
from ddpm_pipeline.hub.push import PushOptions, PushResult, push_contents
from ddpm_pipeline.hub.requests import time_limit
from ddpm_pipeline.hub.requirements import space_requirement
from ddpm_pipeline.hub.target import full_name, is_repo_private

__all__ = ["push_app", "space_files"]

logger = logging.getLogger(__name__)

_OF_A_NEW_SPACE = {CARD, ".gitattributes"}
_METADATA = re.compile(r"---\r?\n(.*?\n)---", re.DOTALL)
_GRADIO = re.compile(r"""^sdk:[ \t]*(["']?)gradio\1[ \t]*\r?$""", re.MULTILINE)
_README = """---
title: "{title}"
sdk: gradio
sdk_version: 6.31.0
python_version: "3.11"
app_file: app.py
models:
- "{repo_id}"
---

Draw with [{repo_id}](https://huggingface.co/{repo_id}) in the browser, by the page of `ddpm app`.
"""
_CODE = """from ddpm_pipeline.app import run_as_space

run_as_space("{repo_id}")
"""


def space_files(repo_id: str, requirement: str) -> dict[str, bytes]:
    """Make the files of a model's Space, by their names.

    Arguments:
        repo_id: The model, OWNER/NAME.
        requirement: By which the Space gets this package, from ``space_requirement``.
    """
    title = repo_id.rpartition("/")[2]
    texts = {
        CARD: _README.format(title=title, repo_id=repo_id),
        "app.py": _CODE.format(repo_id=repo_id),
        "requirements.txt": f"{requirement}\n",
    }
    return {name: text.encode() for name, text in texts.items()}


def push_app(repo_id: str, *, app_requirement: str | None = None, **options: object) -> PushResult:
    """Push a Space that shows a model, made if it is missing and then as private as the model is.

    Arguments:
        repo_id: The model, OWNER/NAME, or NAME for one of the token's user, which the Hub has.
        app_requirement: The line of requirements.txt by which the Space gets this package, as of
            PEP 508; by default where this copy was installed from.
        options: ``token`` and ``timeout`` of ``PushOptions``.
    Returns:
        Where it is. Files of it that were changed on the Hub stay as they are.
    Raises:
        ValueError: If app_requirement is needed or not well formed.
        HubError: If it could not be pushed, a Space of this name is somebody's other work, or one
            is to be made and the Hub does not show the model.
    """
    asked = PushOptions.given_to("a push", options)
    requirement = space_requirement(app_requirement)
    api = HfApi(token=asked.token)
    with explained("push to the space", repo_id, token=asked.token), time_limit(asked.timeout):
        repo_id = full_name(api, repo_id)
        private = _privacy_of_a_new_space(api, repo_id)
    how = PushOptions(
        private=private,
        token=asked.token,
        timeout=asked.timeout,
        commit_message=f"Show {repo_id} with ddpm_pipeline",
    )
    return push_contents(partial(_chosen, requirement), repo_id, how, kind="space")


def _privacy_of_a_new_space(api: HfApi, repo_id: str) -> bool | None:
    """Tell whether the model is private; None if there is a Space, which stays as it is.

    Raises:
        HubError: If it cannot be told.
    """
    if is_repo_private(api, repo_id, "space") is not None:
        return None
    private = is_repo_private(api, repo_id)
    if private is None:
        raise HubError(
            f"cannot push to the space {repo_id!r}: the Hub shows no model of this name, so that "
            "it cannot be told whether the space is to be private; push the model first, or log "
            "in as somebody who may see it"
        )
    return private


def _chosen(requirement: str, present: Present) -> Chosen:
    """Leave alone what others wrote.

    Raises:
        HubError: If all of it is others' work.
    """
    repo_id = present.target.repo_id
    if not present.record and (others := _others_work(present)):
        raise HubError(
            f"cannot push to the space {repo_id!r}: {others}; rename the space, or delete it, and "
            "push again"
        )
    files = space_files(repo_id, requirement)
    changed = [] if not present.record else [name for name in files if _is_changed(present, name)]
    if changed:
        logger.warning(
            "%s of the space %r is kept as it was changed there",
            ", ".join(changed),
            repo_id,
        )
    return Chosen({name: text for name, text in files.items() if name not in changed})


def _is_changed(present: Present, name: str) -> bool:
    return name in present.tree and not present.is_ours(name)


def _others_work(present: Present) -> str:
    """Say what shows that a Space without our record is somebody's; "" if nothing does."""
    if others := sorted(present.tree.keys() - _OF_A_NEW_SPACE):
        return f"it has {printable(others[0])}, which is not of this package"
    text = present.card().text
    if text is None:
        return ""
    metadata = _METADATA.match(text)
    is_gradio = metadata is not None and _GRADIO.search(metadata[1]) is not None
    return "" if is_gradio else f"its {CARD} does not say 'sdk: gradio'"
