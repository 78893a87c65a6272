"""``push_model``: a saved model and its card to the Hub.

    push_model("runs/digits", "alice/digits")

The card is made from what lies in the folder, and keeps what people wrote on it.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from ddpm_pipeline.cards import card_picture, renew_card
from ddpm_pipeline.hub.files import checked_contents, model_files
from ddpm_pipeline.hub.names import check_license
from ddpm_pipeline.hub.present import PresentCard
from ddpm_pipeline.hub.push import PushResult, push_folder

__all__ = ["files_to_push", "push_model"]

logger = logging.getLogger(__name__)


def push_model(
    folder: str | Path,
    repo_id: str,
    *,
    is_whole: bool = True,
    license: str | None = None,  # noqa: A002 (the Hub's word)
    **options: object,
) -> PushResult:
    """Push a saved model, with all that belongs to it and a card, in one commit.

    Arguments:
        folder: Where the model is; nothing in it is changed.
        repo_id, is_whole: As for ``push_folder``.
        license: The Hub's name of a licence, such as "apache-2.0"; the one on the card, or in the
            training config, unless given.
        options: Those of ``PushOptions``.
    Returns:
        Where it is.
    Raises:
        ValueError: If an argument is not allowed, or a file is a pickle.
        FileNotFoundError: If there is no saved model in the folder.
        HubError: If the push failed; the branch is whole.
    """
    if license is not None:
        check_license(license, "license")
    folder = Path(folder).expanduser()
    return push_folder(
        folder,
        repo_id,
        files=files_to_push(folder),
        is_whole=is_whole,
        card=partial(_renewed_card, folder, license),
        **options,
    )


def files_to_push(folder: str | Path) -> list[str]:
    """List what ``push_model`` sends of a folder, as paths in it, beside the card that it writes.

    Raises:
        ValueError, OSError: As ``push_model``, for what must not be sent.
    """
    folder = Path(folder).expanduser()
    files = set(model_files(folder))
    if picture := card_picture(folder):
        files.add(picture)
    return list(checked_contents(folder, sorted(files)))


def _renewed_card(folder: Path, license_name: str | None, present: PresentCard) -> str:
    """Renew the card: the Hub's if somebody wrote on it there, and the folder's otherwise."""
    path = folder / "README.md"
    own = path.read_text(encoding="utf-8") if path.is_file() else None
    if own is None or present.is_ours:
        text = present.text if own is None else own
        return renew_card(folder, repo_id=present.repo_id, existing=text, license=license_name)
    if own != present.text:
        logger.warning(
            "the card of %r was changed on the Hub: its text is kept, and that of README.md here "
            "is not pushed; change it there",
            present.repo_id,
        )
    return renew_card(folder, repo_id=present.repo_id, existing=present.text, license=license_name)
