"""Which weights a run keeps, and when it stops for want of better ones.

    keeper.note(step, "validation_loss", 0.28, decay)     after each measurement
    keeper.stops                                          no better one in early_stop measurements
    keeper.weights()                                      the best so far, or None for the last

One criterion counts, ``best_by``. What is kept of the best is a copy of the weights in each
checkpoint, so that a run that goes on from any checkpoint ends as one that was not interrupted.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from ddpm_pipeline.common import on_main
from ddpm_pipeline.networks import gathered, joined, like, own_part
from ddpm_pipeline.training.log import ADVICE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ddpm_pipeline.training.config import TrainingConfig
    from ddpm_pipeline.training.learner import Learner

__all__ = ["Keeper"]

logger = logging.getLogger(__name__)

_GROUP = "best"


class Keeper:
    """The best weights of a run by one criterion, and how long they have been the best.

    Arguments:
        config: Resolved.
        learner: Whose weights are kept; all processes call every method together.
    """

    def __init__(self, config: TrainingConfig, learner: Learner) -> None:
        self._config, self._learner = config, learner
        self._parts: dict[str, Tensor] | None = None
        self.step: int | None = None
        self.value: float | None = None
        self.decay: float | None = None
        self.measurements, self.without_better = 0, 0

    @property
    def keeps_best(self) -> bool:
        """Tell whether the model that is saved is the best one."""
        return self._config.keep == "best"

    @property
    def stops(self) -> bool:
        """Tell whether the run is to end, as so many measurements found nothing better."""
        return 0 < self._config.early_stop <= self.without_better

    def note(self, step: int, criterion: str, value: float, decay: float | None) -> bool:
        """Hear of a measurement, and keep the weights if they are the best.

        Arguments:
            step: Updates made.
            criterion: What was measured; others than best_by count for nothing.
            value: The less the better.
            decay: Of the average that was measured; None for the weights themselves.
        Returns:
            Whether they are the best, and are kept.
        Raises:
            FloatingPointError: If the value is not finite.
        """
        if criterion != self._config.best_by:
            return False
        accelerator = self._learner.accelerator
        value = on_main(lambda: value, accelerator)  # as all must decide alike, to the bit
        if not math.isfinite(value):
            raise FloatingPointError(f"the {criterion} is {value} at step {step}: {ADVICE}")
        self.measurements += 1
        if not value < (math.inf if self.value is None else self.value):
            self.without_better += 1
            return False
        self.step, self.value, self.decay, self.without_better = step, value, decay, 0
        if self.keeps_best:
            self._parts = {k: v.detach().clone() for k, v in self._own(decay).items()}
        return self.keeps_best

    @property
    def has_weights(self) -> bool:
        """Tell whether there are weights that are kept."""
        return self._parts is not None

    def _own(self, decay: float | None) -> dict[str, Tensor]:
        """Give this process's part of the weights, or of an average."""
        learner = self._learner
        if decay is not None:
            return learner.averages.state(decay)
        return {name: own_part(parameter) for name, parameter in learner.parameters.items()}

    def weights(self) -> dict[str, Tensor] | None:
        """Give the best weights to the main process, with all that is no weight beside them.

        None where the last ones are kept, or none were measured yet.
        """
        if self._parts is None:
            return None
        return self._learner.state_with(self._parts)

    def _joined(self) -> dict[str, Tensor]:
        parameters = self._learner.parameters
        return {name: joined(parameters[name], part) for name, part in self._parts.items()}

    @property
    def record(self) -> dict[str, Any] | None:
        """Say which weights are kept, for the record of the run; None for the last."""
        if not self.keeps_best or self.step is None:
            return None
        return {
            "step": self.step,
            "by": self._config.best_by,
            "value": self.value,
            "measurements": self.measurements,
        }

    def report(self, step: int) -> None:
        """Say, at the end, why the run ended and which weights are its model."""
        if self.stops:
            count = self.without_better
            logger.info(
                "stopped early after step %d: nothing better in %d measurements", step, count
            )
        if self.step is not None:
            what = "the model is the last; best was"
            if self.keeps_best or self.step == step:
                what = "the model is that of"
            many = (
                "1 measurement" if self.measurements == 1 else f"{self.measurements} measurements"
            )
            by = (self._config.best_by, self.value, many)
            logger.info("%s step %d, by %s (%.4g) of %s", what, self.step, *by)

    # Checkpoints.

    def state(self) -> dict[str, Any]:
        """Give all but the weights, as JSON values."""
        return {
            "kept": {
                "by": self._config.best_by,
                "step": self.step,
                "value": self.value,
                "decay": self.decay,
                "measurements": self.measurements,
                "without_better": self.without_better,
            }
        }

    def tensors(self, *, copied: bool = False) -> dict[str, dict[str, Tensor]]:
        """Give the best weights as a group of whole tensors to the main process, if there are."""
        if self._parts is None:
            return {}
        keep = self._learner.accelerator.is_main_process
        return {_GROUP: gathered(self._joined(), keep=keep, copied=copied)}

    def load(self, state: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from a ``state`` and ``tensors``; of another criterion, from nothing."""
        kept, best = state.get("kept"), tensors.get(_GROUP)
        if kept is None or kept["by"] != self._config.best_by:
            return
        if self.keeps_best and kept["step"] is not None and best is None:
            logger.warning(
                "the checkpoint holds no best weights: those measured from now on count"
            )
            return
        self.step, self.value, self.decay = kept["step"], kept["value"], kept["decay"]
        self.measurements, self.without_better = kept["measurements"], kept["without_better"]
        if self.keeps_best and best is not None:
            parameters = self._learner.parameters
            self._parts = {
                name: own_part(like(parameter, best[name])).detach().to(parameter.device).clone()
                for name, parameter in parameters.items()
            }
