"""``NetworkOptions``: the options of ``TrainingConfig`` that say which network, and what of it.

They are checked with all others in ``checks``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["NetworkOptions", "TrainedPart"]


ModelSize = Literal["small", "base", "ddpm", "adm"]
TrainedPart = Literal["all", "attention_and_norms", "decoder", "last_levels", "classes"]


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Which network a run trains: one of before, or a fresh one, with classes or without."""

    pretrained_model_name_or_path: str | None = None
    """A model to start from: a folder, a run, a checkpoint or a name of the Hub; options that say
    what a model is, such as resolution and prediction_type, are its own unless given."""
    pretrained_revision: str | None = None
    """Branch, tag or commit of the pretrained model on the Hub."""
    train_only: TrainedPart = "all"
    """The part of a pretrained model that is trained: all; attention_and_norms; decoder, the way
    up with the output; last_levels, the two largest levels of that; or classes, the embeddings."""
    layer_decay: float = 1.0
    """Learning rate of a level of the UNet in that of the next one towards the output."""
    model_config_name_or_path: str | None = None
    """A UNet2DModel's config.json, a folder or Hub model with one; else model_size chooses. The
    weights are drawn afresh."""
    model_size: ModelSize = "small"
    """The UNet made for the resolution: "small", "base", "ddpm", that of the 2020 paper, or "adm",
    of 280 million parameters, for images of 64 to 256 pixels."""
    dropout: float = 0.0
    """Dropout probability inside the UNet."""
    class_conditional: bool = False
    """Train on class labels: folder names, the label column or the labels file."""
    num_classes: int | None = None
    """How many classes there must be; counted in the data unless given."""
    label_dropout: float = 0.1
    """Share of labels replaced by the null class, which guidance needs."""
    condition_dropout: float = 0.1
    """Share of images that are trained on without condition_on, condition_vector and class, which
    guidance needs; 0 trains on all with theirs."""
