"""Going on from a run that was to be shorter, or that settled other defaults.

    output_dir/checkpoints/step-0001000/       the rotation
               before-cooldown/step-0000801/   kept beside it, for a larger max_train_steps
               shorter-run/step-0001000/       what a longer run left behind

Up to the cooldown a run makes the updates that any longer run makes, so a longer run goes on from
there, bit for bit as if it had been as long from the start.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_pipeline.common import printable
from ddpm_pipeline.training.storage.checkpoints import check_whole, read_state
from ddpm_pipeline.training.storage.identity import saved_identity

if TYPE_CHECKING:
    from ddpm_pipeline.training.config import TrainingConfig
    from ddpm_pipeline.training.storage.identity import RunIdentity

__all__ = ["BEFORE_COOLDOWN", "SHORTER", "earlier_start", "set_aside_later", "settled_as_before"]

logger = logging.getLogger(__name__)


BEFORE_COOLDOWN = "before-cooldown"
SHORTER = "shorter-run"
_SETTLED = {
    "mixed_precision",
    "optimizer",
    "learning_rate",
    "lr_warmup_steps",
    "compile",
    "channels_last",
    "deterministic",
}


def settled_as_before(
    given: TrainingConfig, derived: tuple[str, ...], state: dict[str, Any]
) -> TrainingConfig:
    """Settle what nobody gave as the run did that is gone on from.

    Arguments:
        given: The options as they were given.
        derived: Those that nobody gave.
        state: Of a checkpoint of the run.
    """
    old = state["identity"]["config"]
    before = {name: old[name] for name in derived if name in _SETTLED & old.keys()}
    warmup = given.lr_warmup_steps
    if warmup is not None and old["lr_warmup_steps"] == min(warmup, old["max_train_steps"] // 2):
        before["lr_warmup_steps"] = old["lr_warmup_steps"]  # as earlier versions cut it
    return given.replace(**before)


def earlier_start(checkpoints: Path, newest: Path, identity: RunIdentity) -> Path | None:
    """Find the last whole checkpoint that a longer run can go on from, before the newest one.

    Arguments:
        checkpoints: The run's folder of them.
        newest: Its newest.
        identity: Of the longer run.
    Returns:
        The checkpoint; None if the newest differs in more than its length, or there is none.
    """
    state = read_state(newest)
    differing = identity.differing(saved_identity(state, newest), step=state["step"])
    longer = identity.config.max_train_steps
    if differing.keys() != {"max_train_steps"} or longer <= differing["max_train_steps"][0]:
        return None
    found = [*checkpoints.glob("step-*"), *checkpoints.parent.glob(f"{BEFORE_COOLDOWN}/step-*")]
    for path in sorted(found, key=lambda path: path.name, reverse=True):
        try:
            check_whole(path)
            state = read_state(path)
            differing = identity.differing(saved_identity(state, path), step=state["step"])
        except ValueError:
            continue
        if not differing:
            return path
    return None


def set_aside_later(step: int, checkpoints: Path, *folders: Path) -> list[Path]:
    """Move what a shorter run made after a step out of the way of a longer one.

    Arguments:
        step: Where the longer run goes on.
        checkpoints, folders: The run's folders; what they hold of later steps is moved.
    Returns:
        Where it is then.
    Raises:
        FileExistsError: If something else is there.
    """
    aside = checkpoints.parent / SHORTER
    later = [
        path
        for path in (*checkpoints.glob("step-*"), *(p for f in folders for p in f.glob("step-*")))
        if (number := path.stem.removeprefix("step-")).isdecimal() and int(number) > step
    ]
    for path in later:
        if (aside / path.name).exists():
            raise FileExistsError(
                f"{str(aside / path.name)!r} is in the way of a checkpoint or grid that a longer "
                "run does not need; move it elsewhere"
            )
    moved = []
    for path in later:
        aside.mkdir(exist_ok=True)
        moved.append(path.rename(aside / path.name))
    if moved:
        place = printable(str(aside))
        logger.info("what the shorter run made after step %d is kept in %s", step, place)
    return moved
