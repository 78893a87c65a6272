"""What a network's config remembers of its training: its classes, and how its images were read.

    set_facts(unet, ModelFacts(class_names=("cat", "dog"), class_counts=(40, 38)))
    facts_of(unet).class_names

The facts are a private entry of the network's own config, which ``save_pretrained``,
``from_pretrained``, ``from_config`` and the Hub carry along, here and in stock diffusers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ddpm_pipeline.common import PRIVATE_KEY
from ddpm_pipeline.networks.conditioned_on import Conditioning
from ddpm_pipeline.networks.value_scale import ValueScale

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["ModelFacts", "facts_of", "set_facts"]


@dataclass(frozen=True)
class ModelFacts:
    """Facts of a model's training, each None where it is not known.

    Arguments:
        class_names: Names of the classes 0, 1, ...; None also where classes are numbers.
        class_counts: Training images of each class; 0 for an embedding that was never trained.
        trains_null_class: Whether the last embedding was trained as the null class.
        reading: The options by which the training images were read, as JSON values.
        picture_bands: The channels that a picture shows, one or three.
        values: The ``ValueScale`` of images that are no bytes, as JSON values.
        conditioning: The ``Conditioning`` of a model that has one, as JSON values.
    """

    class_names: tuple[str, ...] | None = None
    class_counts: tuple[int, ...] | None = None
    trains_null_class: bool | None = None
    reading: dict[str, Any] | None = None
    picture_bands: tuple[int, ...] | None = None
    values: dict[str, Any] | None = None
    conditioning: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give what is known as JSON values."""
        known = {name: value for name, value in asdict(self).items() if value is not None}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in known.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelFacts:
        """Make facts of what ``to_dict`` gave; later versions may know more, which is left."""
        known = {field.name: values.get(field.name) for field in fields(cls)}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in known.items()})

    @property
    def scale(self) -> ValueScale | None:
        """Give the scale of the model's values; None for bytes.

        Raises:
            ValueError: If it is damaged.
        """
        return None if self.values is None else ValueScale.from_dict(self.values)

    @property
    def conditioned_on(self) -> Conditioning | None:
        """Give what the model is conditioned on beside classes; None without.

        Raises:
            ValueError: If it is damaged.
        """
        return None if self.conditioning is None else Conditioning.from_dict(self.conditioning)

    @property
    def num_classes(self) -> int | None:
        """Count the classes without the null class; None where the classes are not known."""
        known = self.class_names if self.class_counts is None else self.class_counts
        return None if known is None else len(known)

    def name_of(self, number: int) -> str:
        """Give a class in words: its name and number, or the number of one without a name."""
        if self.class_names is None or not 0 <= number < len(self.class_names):
            return str(number)
        return f"{self.class_names[number]!r}"


def facts_of(network: object) -> ModelFacts:
    """Give the facts in a network's config; none for a model of others.

    What is said of classes counts only for as many class embeddings, and the null class after
    them, as the network has: a config that was given others since is another model's.

    Arguments:
        network: A network, wrapped for several processes or not, or its config.
    """
    config = _config_of(network)
    entry = config.get(PRIVATE_KEY) if hasattr(config, "get") else None
    if not isinstance(entry, dict):
        return ModelFacts()
    facts = ModelFacts.from_dict(entry)
    known = [each for each in (facts.class_names, facts.class_counts) if each is not None]
    if any(len(each) + 1 != config.get("num_class_embeds") for each in known):
        return replace(facts, class_names=None, class_counts=None, trains_null_class=None)
    return facts


def set_facts(unet: UNet2DModel, facts: ModelFacts) -> None:
    """Put facts into a network's config, in place of those that are there."""
    unet.register_to_config(**{PRIVATE_KEY: facts.to_dict()})


def _config_of(network: object) -> Any:  # noqa: ANN401
    """Find the config of a network, behind the wrapper for several processes too."""
    inner = getattr(network, "module", network)
    return getattr(inner, "config", inner)
