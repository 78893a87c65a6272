"""The models of the page, each opened when it is first asked for, as ``ddpm sample`` does.

    models = Models(("model", "runs/pets"))
    models.open("model").pipe

A run that has no saved model yet is opened from its newest checkpoint, again whenever there is a
newer one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from diffusers import UNet2DModel

from ddpm_pipeline.common import process_state
from ddpm_pipeline.networks import Conditioning, facts_of, trained_classes
from ddpm_pipeline.pipelines import DDPMPipeline, SamplingOptions, load_image_sampler
from ddpm_pipeline.training import export_checkpoint, has_checkpoints_only

__all__ = ["Models", "OpenModel"]

_OF_A_PICTURE = (0, 1, 3, 4)  # channels: none, grey, RGB and RGBA


@dataclass(frozen=True, eq=False)
class OpenModel:
    """A model that is in memory.

    Arguments:
        name: As it was given.
        pipe: The pipeline, with the scheduler that the model was saved with.
        num_steps: K, where nobody asks for another.
        classes: What can be asked for, by name or number; None for a model without classes.
        source: What was opened: the name, or a checkpoint of it.
    """

    name: str
    pipe: DDPMPipeline
    num_steps: int
    classes: tuple[str | int, ...] | None
    source: str

    @property
    def told(self) -> Conditioning | None:
        """What the model is conditioned on beside classes; None without."""
        return facts_of(self.pipe.unet).conditioned_on

    @property
    def most_steps(self) -> int:
        """T."""
        return self.pipe.scheduler.config.num_train_timesteps


class Models:
    """Models by name, opened when they are first asked for and kept.

    Arguments:
        names: Folders of models or of runs, or models of the Hub.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._open: dict[str, tuple[object, OpenModel]] = {}
        self._lock = Lock()

    def open(self, name: str) -> OpenModel:
        """Give a model, which is loaded if it is not yet, or has changed on disk.

        Raises:
            ValueError: If the page has no such model.
            OSError, ValueError: If it cannot be loaded.
        """
        if name not in self.names:
            raise ValueError(f"model must be one of {', '.join(self.names)}, got {name!r}")
        with self._lock:
            state = _state(name)
            known = self._open.get(name)
            if known is None or known[0] != state:
                self._open[name] = state, _opened(name)
            return self._open[name][1]


def _opened(name: str) -> OpenModel:
    """Load a model, or that of the newest checkpoint of a run that has none."""
    if not has_checkpoints_only(name):
        return _loaded(name, name, name)
    with TemporaryDirectory() as folder:
        model = Path(folder, "model")
        found = export_checkpoint(name, model)
        return _loaded(name, str(model), str(found))


def _loaded(name: str, folder: str, source: str) -> OpenModel:
    options = SamplingOptions(model=folder, scheduler="as_saved")
    sampler = load_image_sampler(options, process_state().device)
    found = OpenModel(name, sampler.pipe, sampler.num_steps, _classes(sampler.pipe.unet), source)
    told = found.told
    if told is not None and told.scale is not None:
        raise ValueError(
            f"the page does not draw from {name!r}, which is conditioned on images of exact "
            "values; `ddpm sample` does"
        )
    if told is not None and told.channels not in _OF_A_PICTURE:
        raise ValueError(
            f"the page does not draw from {name!r}, which is conditioned on images of "
            f"{told.channels} channels, where a picture has 1, 3 or 4; `ddpm sample` does"
        )
    return found


def _classes(unet: UNet2DModel) -> tuple[str | int, ...] | None:
    """Give the classes that were trained, or all embeddings where that is not known."""
    if unet.config.num_class_embeds is None:
        return None
    trained = trained_classes(unet)
    return tuple(range(unet.config.num_class_embeds)) if trained is None else trained


def _state(name: str) -> object:
    """Tell one state of a model on disk from another: when what is opened was last written."""
    folder = Path(name)
    if not folder.is_dir():
        return None
    configs = ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json")
    files = [*(folder / name for name in configs), *sorted(folder.glob("checkpoints/step-*"))[-1:]]
    return [(str(f), f.stat().st_mtime_ns) for f in files if f.exists()]
