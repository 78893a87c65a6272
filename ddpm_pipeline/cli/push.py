"""``ddpm push``: a saved model, with its card and its numbers, to the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ddpm_pipeline.cli.arguments import naming_options, parse
from ddpm_pipeline.common import check_saved_model, expand_home, printable
from ddpm_pipeline.hub import check_license, check_repo_id, check_requirement

if TYPE_CHECKING:
    from ddpm_pipeline.hub import PushResult

__all__ = ["PushArguments", "run"]


@dataclass(frozen=True, kw_only=True)
class PushArguments:
    """Push a saved model to the Hub in one commit: `ddpm push MODEL_DIR USER/NAME`.

    With it go the card, the configuration of the training run, what was measured and a picture of
    samples; checkpoints, logs and whatever else is in the folder stay. A token is taken from
    `hf auth login`, or from HF_TOKEN.
    """

    model: str
    """The folder of the model; may be left out before its name."""
    repo_id: str
    """USER/NAME on the Hub, or NAME for your own, made if it is missing; may be left out before
    its name."""
    revision: str | None = None
    """Branch, made if it is missing; main unless given."""
    private: bool = False
    """Let a repository that is made be private."""
    commit_message: str | None = None
    """Title of the commit."""
    license: str | None = None
    """What the Hub calls the model's licence, such as apache-2.0; as on the card unless given."""
    create_pr: bool = False
    """Open a pull request instead of committing to the branch."""
    with_app: bool = False
    """Make a Space beside the model, as private as it, with the page of `ddpm app`."""
    app_requirement: str | None = None
    """Line of requirements.txt by which the Space gets this package, such as "ddpm_pipeline[app] @
    git+https://HOST/USER/NAME@COMMIT"; unless given, the package index or the Git commit that this
    package was installed from. Needed if that was a folder."""
    dry_run: bool = False
    """List what would be sent, and send nothing; asks neither the Hub nor for a token."""

    def __post_init__(self) -> None:
        expand_home(self, "model")
        check_repo_id(self.repo_id, "repo_id", needs_owner=False)
        if self.license is not None:
            check_license(self.license, "license")
        if self.with_app and (self.create_pr or self.revision not in (None, "main")):
            given = "create_pr" if self.create_pr else f"revision={self.revision!r}"
            raise ValueError(f"with_app shows the branch main of the model, got {given}")
        if self.app_requirement is not None:
            if not self.with_app:
                raise ValueError("app_requirement is for with_app, which is not given")
            check_requirement(self.app_requirement)


def run(argv: Sequence[str]) -> None:
    """Push a model as the arguments say, and print where it is."""
    with naming_options(PushArguments):
        arguments = parse(PushArguments, argv, prog="ddpm push", positional=("model", "repo_id"))
        check_saved_model(arguments.model)

        from ddpm_pipeline.hub import push_app, push_model, space_requirement

        requirement = space_requirement(arguments.app_requirement) if arguments.with_app else ""
        if arguments.dry_run:
            _list_files(Path(arguments.model))
            if arguments.with_app:
                _list_app(arguments.repo_id, requirement)
            return
        result = push_model(
            arguments.model,
            arguments.repo_id,
            revision=arguments.revision,
            private=arguments.private or None,
            commit_message=arguments.commit_message,
            create_pr=arguments.create_pr,
            license=arguments.license,
        )
        _say(result)
        if arguments.with_app:
            _say(push_app(result.repo_id, app_requirement=requirement))


def _say(result: PushResult) -> None:
    print(result.url if result.is_new else f"nothing has changed: {result.url}")  # noqa: T201


def _list_files(folder: Path) -> None:
    """Print the files of a model that a push would send, with their sizes in bytes."""
    from ddpm_pipeline.hub import files_to_push

    files = [name for name in files_to_push(folder) if name != "README.md"]
    sizes = [(folder / name).stat().st_size for name in files]
    lines = [f"{size:14,d}  {printable(name)}" for name, size in zip(files, sizes, strict=True)]
    print(*lines, f"{'':14}  README.md, the card that is made of them", sep="\n")  # noqa: T201


def _list_app(repo_id: str, requirement: str) -> None:
    """Print the files of the Space that shows the model, with their sizes in bytes."""
    from ddpm_pipeline.hub import space_files

    files = space_files(repo_id, requirement)
    print(f"{'':14}  and to the Space:")  # noqa: T201
    print(*(f"{len(text):14,d}  {name}" for name, text in files.items()), sep="\n")  # noqa: T201
    print(f"{'':14}  the Space installs {requirement}")  # noqa: T201
