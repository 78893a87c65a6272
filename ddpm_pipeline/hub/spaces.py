"""``push_app``: a Space of the Hub that shows a pushed model on the page of ``ddpm app``.

    push_app("alice/digits")            .../spaces/alice/digits

A Space has a name of its own beside models, so that it is called as its model is. It holds three
small files, which are made here: README.md, by which the Hub knows what to start, requirements.txt
and app.py, which calls this package.
"""

from __future__ import annotations

import logging

from huggingface_hub import HfApi

from ddpm_pipeline.common import __version__
from ddpm_pipeline.hub.errors import HubError, explained
from ddpm_pipeline.hub.present import CARD, Chosen, Present
from ddpm_pipeline.hub.push import PushOptions, PushResult, push_contents
from ddpm_pipeline.hub.requests import time_limit
from ddpm_pipeline.hub.target import is_repo_private

__all__ = ["push_app", "space_files"]

logger = logging.getLogger(__name__)

_APP = "app.py"
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


def space_files(repo_id: str) -> dict[str, bytes]:
    """Make the files of a model's Space, by their names.

    Arguments:
        repo_id: The model, OWNER/NAME.
    """
    title = repo_id.rpartition("/")[2]
    texts = {
        CARD: _README.format(title=title, repo_id=repo_id),
        _APP: _CODE.format(repo_id=repo_id),
        "requirements.txt": f"ddpm_pipeline[app]=={__version__}\n",
    }
    return {name: text.encode() for name, text in texts.items()}


def push_app(repo_id: str, **options: object) -> PushResult:
    """Push a Space that shows a model, made if it is missing and then as private as the model is.

    Arguments:
        repo_id: The model, OWNER/NAME, which the Hub has.
        options: ``token`` and ``timeout`` of ``PushOptions``.
    Returns:
        Where it is. Files of it that were changed on the Hub stay as they are.
    Raises:
        HubError: If it could not be pushed, or a Space of this name is somebody's other work.
    """
    asked = PushOptions.given_to("a push", options)
    api = HfApi(token=asked.token)
    with explained("push to the space", repo_id, token=asked.token), time_limit(asked.timeout):
        is_new = is_repo_private(api, repo_id, "space") is None
        private = is_repo_private(api, repo_id) if is_new else None
    how = PushOptions(
        private=private,
        token=asked.token,
        timeout=asked.timeout,
        commit_message=f"Show {repo_id} with ddpm_pipeline",
    )
    return push_contents(_chosen, repo_id, how, kind="space")


def _chosen(present: Present) -> Chosen:
    """Leave alone what others wrote.

    Raises:
        HubError: If all of it is others' work.
    """
    repo_id = present.target.repo_id
    if not present.record and _APP in present.tree:
        raise HubError(
            f"cannot push to the space {repo_id!r}: it has an {_APP} that is not of this package; "
            "rename the space, or delete it, and push again"
        )
    files = space_files(repo_id)
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
