"""``Condition``: what the images of a batch are conditioned on; ``Tensor`` where that is a class.

    given = Condition(vector=torch.tensor([[0.3, 45.0]]))
    x, labels = network_inputs(unet, x_t, given)            what a UNet2DModel is called with
    without = unconditional(unet, given)                    for guidance

Wherever class labels go, a condition goes in their place: it has as many rows, is indexed, moved
and joined like them. As data give it, it holds numbers in the unit of their columns and pictures
of their own type and size; ``ready_for`` a network, it holds embeddings and input channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ddpm_pipeline.common import precise_dtype
from ddpm_pipeline.networks.model_facts import facts_of

if TYPE_CHECKING:
    from ddpm_pipeline.networks.conditioned_on import Conditioning

__all__ = [
    "Condition",
    "Told",
    "blank_inputs",
    "embedding_width",
    "image_channels",
    "input_options",
    "joined_rows",
    "network_inputs",
    "ready_for",
    "told_of",
    "told_tensors",
    "unconditional",
]

_UNIT_WIDTHS = 4  # an embedding is as wide as so many first levels


@dataclass(frozen=True, eq=False)
class Condition:
    """What each of B images is conditioned on; every part may be None.

    Arguments:
        labels: Classes, int64 (B,); once ready also the embeddings of vectors, float32 (B, width).
        vector: Numbers in the unit of their columns, (B, n); float64 unless a device has none.
        picture: Pictures of their own type and size, (B, C, h, w); once ready float32 (B, C, H, W)
            in the unit of a model's images.
        dropped: Which images are to be without any condition, bool (B,).
        is_ready: Whether a network can be called with it.
    Raises:
        ValueError: If the parts are of different numbers of images, or there are none.
    """

    labels: Tensor | None = None
    vector: Tensor | None = None
    picture: Tensor | None = None
    dropped: Tensor | None = None
    is_ready: bool = False

    def __post_init__(self) -> None:
        if len({len(part) for part in self.parts.values()}) != 1:
            sizes = {name: len(part) for name, part in self.parts.items()}
            raise ValueError(f"the parts of a condition must be of as many images, got {sizes}")

    @property
    def parts(self) -> dict[str, Tensor]:
        """Give the parts that are there, by name."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: part for name, part in found.items() if isinstance(part, Tensor)}

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> Condition:
        return replace(self, **{name: function(part) for name, part in self.parts.items()})

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def __getitem__(self, rows: Any) -> Condition:  # noqa: ANN401 (as of tensors)
        return self._mapped(lambda part: part[rows])

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(iter(self.parts.values())).device

    def to(self, device: torch.device | str, **kwargs: Any) -> Condition:  # noqa: ANN401
        """Give it on a device, a vector as precise as that allows."""
        parts = self.parts
        if self.vector is not None:
            parts["vector"] = self.vector.to(precise_dtype(torch.device(device)))
        return replace(self, **{name: part.to(device, **kwargs) for name, part in parts.items()})

    def pin_memory(self) -> Condition:
        """Give it in memory that a GPU reads by itself."""
        return self._mapped(Tensor.pin_memory)

    def expanded(self, rows: int) -> Condition:
        """Give one row as often as there are to be rows."""
        return self._mapped(lambda part: part.expand(rows, *part.shape[1:]))

    def without(self, dropped: Tensor) -> Condition:
        """Give it with some images, bool (B,), that are to be without any condition."""
        own = self.dropped
        return replace(self, dropped=dropped if own is None else own | dropped)


Told = Tensor | Condition | None
"""What a network is told of the images of a batch: classes, int64 (B,), a condition, or None."""


def network_inputs(network: object, x_t: Tensor, told: Told) -> tuple[Tensor, Tensor | None]:
    """Give what a ``UNet2DModel`` is called with, (x, class_labels), beside t.

    Arguments:
        network: A network, wrapped or not, or its config.
        x_t: Noisy images, (B, C, H, W).
        told: What it is told.
    Raises:
        ValueError: If a model that is conditioned is told nothing of that, or the other way round.
    """
    if not isinstance(told, Condition):
        if (wanted := facts_of(network).conditioned_on) is not None:
            raise ValueError(f"condition must be given: the model is conditioned on {wanted}")
        return x_t, told
    ready = ready_for(network, told, tuple(x_t.shape[2:]))
    x = x_t if ready.picture is None else torch.cat([x_t, ready.picture.to(x_t.dtype)], 1)
    return x, ready.labels


def ready_for(network: object, told: Condition, sides: tuple[int, int]) -> Condition:
    """Make a condition ready for a network, which it is given once or each time.

    Arguments:
        network: A network, wrapped or not, or its config.
        told: As data give it, or ready already.
        sides: Height and width of the images.
    Raises:
        ValueError: If it is not what the model is conditioned on; says what that is.
    """
    if told.is_ready:
        return told
    wanted = facts_of(network).conditioned_on
    _check(wanted, told)
    labels, picture = told.labels, None
    if told.vector is not None:
        labels = wanted.encoded(told.vector, embedding_width(network))
    if told.picture is not None:
        picture = wanted.pictured(told.picture, sides)
    ready = Condition(labels=labels, picture=picture, is_ready=True)
    if told.dropped is None:
        return ready
    kept = ~told.dropped
    nothing = unconditional(network, ready)
    return replace(
        ready,
        **{
            name: torch.where(kept.view(-1, *[1] * (part.ndim - 1)), part, getattr(nothing, name))
            for name, part in ready.parts.items()
        },
    )


def _check(wanted: Conditioning | None, told: Condition) -> None:
    """Refuse a condition that is not what a model is conditioned on."""
    if wanted is None:
        raise ValueError("condition must be left out: the model is not conditioned on any")
    found = () if told.vector is None else told.vector.shape[1:]
    if found != ((len(wanted.columns),) if wanted.columns else ()):
        numbers = f"{', '.join(map(str, found)) or 'no'} numbers" if found else "no vector"
        raise ValueError(f"condition has {numbers}, and the model is conditioned on {wanted}")
    shape = () if told.picture is None else tuple(told.picture.shape[1:])
    if shape != ((wanted.channels, *wanted.sides) if wanted.channels else ()):
        seen = f"images of shape {shape}" if shape else "no images"
        raise ValueError(f"condition has {seen}, and the model is conditioned on {wanted}")


def unconditional(network: object, told: Tensor | Condition) -> Tensor | Condition:
    """Give what a network is told of images without a class and without a condition.

    Arguments:
        network: A network, wrapped or not, or its config.
        told: Classes, or a condition that is ready.
    """
    if isinstance(told, Condition):
        labels = told.labels
        picture = None if told.picture is None else torch.zeros_like(told.picture)
        if labels is not None and labels.is_floating_point():
            labels = torch.zeros_like(labels)
        elif labels is not None:
            labels = unconditional(network, labels)
        return replace(told, labels=labels, picture=picture)
    return torch.full_like(told, _of_config(network, "num_class_embeds") - 1)


def blank_inputs(network: object, x_t: Tensor) -> tuple[Tensor, Tensor | None]:
    """Give inputs as ``network_inputs`` does, of zeros where a network is to be told something.

    Arguments:
        network: A network, wrapped or not, or its config.
        x_t: Noisy images, (B, C, H, W); only their shape counts.
    """
    conditioning, config = facts_of(network).conditioned_on, _config(network)
    channels = 0 if conditioning is None else conditioning.channels
    x = torch.cat([x_t, x_t.new_zeros(len(x_t), channels, *x_t.shape[2:])], 1)
    if conditioning is not None and conditioning.columns:
        return x, x_t.new_zeros(len(x_t), embedding_width(network))
    has_classes = getattr(config, "num_class_embeds", None) is not None
    return x, x_t.new_zeros(len(x_t), dtype=torch.int64) if has_classes else None


def joined_rows(parts: Sequence[Tensor | Condition]) -> Tensor | Condition:
    """Join what networks are told of several batches, as ``torch.cat`` does."""
    first = parts[0]
    if not isinstance(first, Condition):
        return torch.cat(list(parts))
    joined = {name: torch.cat([getattr(p, name) for p in parts]) for name in first.parts}
    return replace(first, **joined)


def told_tensors(told: Told) -> list[Tensor]:
    """Give what a network is told as tensors alone, for a recorded computation."""
    if isinstance(told, Condition):
        return [part for part in (told.labels, told.picture) if part is not None]
    return [] if told is None else [told]


def told_of(tensors: Sequence[Tensor], network: object) -> Told:
    """Put together again what ``told_tensors`` gave of what a network is told."""
    if facts_of(network).conditioned_on is None:
        return tensors[0] if tensors else None
    *labels, last = tensors
    if last.ndim == 4:
        return Condition(labels=labels[0] if labels else None, picture=last, is_ready=True)
    return Condition(labels=last, is_ready=True)


def image_channels(network: object) -> int:
    """Count the channels of a network's images, without those of a condition.

    Arguments:
        network: A network, wrapped or not, or its config.
    """
    conditioning = facts_of(network).conditioned_on
    channels = _of_config(network, "in_channels")
    return channels - (0 if conditioning is None else conditioning.channels)


def input_options(channels: int, conditioning: Conditioning | None) -> dict[str, Any]:
    """Give the arguments of a ``UNet2DModel`` that say what it is given beside t.

    Arguments:
        channels: Of the images.
        conditioning: What it is to be conditioned on beside classes, or None.
    """
    if conditioning is None:
        return {"in_channels": channels}
    told = {"in_channels": channels + conditioning.channels}
    return told | ({"class_embed_type": "identity"} if conditioning.columns else {})


def embedding_width(network: object) -> int:
    """Give the width of the embedding that a ``UNet2DModel`` adds to that of the timestep."""
    return _UNIT_WIDTHS * _of_config(network, "block_out_channels")[0]


def _config(network: object) -> Any:  # noqa: ANN401 (a config of diffusers, or a dict)
    inner = getattr(network, "module", network)
    return getattr(inner, "config", inner)


def _of_config(network: object, key: str) -> Any:  # noqa: ANN401
    """Give a value of a config, which a network of one's own may keep as attributes alone."""
    config = _config(network)
    return config[key] if isinstance(config, dict) else getattr(config, key)
