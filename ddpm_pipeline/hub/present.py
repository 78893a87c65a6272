"""What a push comes upon in a repository, and what it brings when it knows that.

present = Present.of(target)
present.is_ours("README.md")        whether nobody changed it since we pushed it
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.hf_api import RepoFile

from ddpm_pipeline.hub.files import RECORD_NAME, Hashes, read_record
from ddpm_pipeline.hub.target import Target

__all__ = ["CARD", "Chosen", "Present", "PresentCard"]

CARD = "README.md"


@dataclass(frozen=True)
class PresentCard:
    """The README.md that a push comes upon.

    Arguments:
        repo_id: The repository, with its owner.
        text: None if there is none.
        is_ours: Whether nobody changed it since we pushed it.
    """

    repo_id: str
    text: str | None
    is_ours: bool


@dataclass(frozen=True)
class Present:
    """What a push comes upon.

    Arguments:
        target: The branch.
        head: Its newest commit.
        tree: The files there.
        record: What earlier pushes wrote down; empty if there were none.
    """

    target: Target
    head: str
    tree: dict[str, RepoFile]
    record: dict[str, Hashes]

    @classmethod
    def of(cls, target: Target) -> Present:
        """Ask the Hub."""
        head = target.head()
        tree = target.tree(head)
        record = read_record(target.text(head, RECORD_NAME)) if RECORD_NAME in tree else {}
        return cls(target, head, tree, record)

    def is_ours(self, name: str) -> bool:
        """Tell whether a file is as we pushed it."""
        return name in self.record and self.record[name].are_of(self.tree[name])

    def card(self) -> PresentCard:
        """Read the card."""
        if CARD not in self.tree:
            return PresentCard(self.target.repo_id, None, True)
        text = self.target.text(self.head, CARD)
        return PresentCard(self.target.repo_id, text, self.is_ours(CARD))


@dataclass(frozen=True)
class Chosen:
    """What a push brings.

    Arguments:
        contents: Files by their paths in the repository.
        theirs: Those that hold other people's words.
    """

    contents: dict[str, Path | bytes]
    theirs: tuple[str, ...] = ()
