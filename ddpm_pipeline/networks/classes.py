"""The classes of a network, by name: what callers call them, and which can be drawn.

    class_numbers(unet, ["cat", "dog"])        [0, 1], the numbers of their embeddings
    trained_classes(unet)                      ("cat", "dog"), those that had training images
    check_trained(unet, [0, 1], guided=True)   refuses embeddings that were never trained

A string is a class's name, or the number of one where classes have no such names. An integer is
the number of an embedding; where classes are called by numbers that are not theirs, as with
folders "3" and "7", an integer would mean two classes, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddpm_pipeline.common import is_integer, normalized
from ddpm_pipeline.networks.model_facts import facts_of

__all__ = [
    "check_asked_classes",
    "check_trained",
    "class_numbers",
    "listed",
    "trained_classes",
]

_LISTED = 20  # names in a message


def class_numbers(unet: Any, labels: Sequence[str | int]) -> list[int]:  # noqa: ANN401
    """Give the numbers of classes that are called by name or by number.

    Arguments:
        unet: A network with ``num_class_embeds`` in its config.
        labels: Names and numbers.
    Raises:
        ValueError: If there is no such class, or a number means two.
    """
    facts, count = facts_of(unet), unet.config.num_class_embeds
    numbers = {name: number for number, name in enumerate(facts.class_names or ())}
    own_numbers = bool(numbers) and all(map(_is_number, numbers))

    def number_of(label: str | int) -> int:
        if isinstance(label, str):
            return _by_name(label, numbers, count, own_numbers=own_numbers)
        return _by_number(label, numbers, count, own_numbers=own_numbers)

    return [number_of(label) for label in labels]


def _by_name(label: str, numbers: dict[str, int], count: int, *, own_numbers: bool) -> int:
    """Find a class by its name, or by its number where that is no other's name."""
    if label in numbers:
        return numbers[label]
    looks = {normalized(name): number for name, number in numbers.items()}
    if (number := looks.get(normalized(label))) is not None:
        return number
    is_null_class = label == str(count - 1)
    if numbers and not is_null_class and (own_numbers or not _is_number(label)):
        raise ValueError(f"class_labels must be among {listed(numbers)}, got {label!r}")
    if not _is_number(label):
        raise ValueError(
            f"class_labels must be integers from 0 to {count - 1}, got {label!r}: the model "
            "keeps no names of its classes"
        )
    if int(label) >= count:
        raise ValueError(f"class_labels must lie in [0, {count - 1}], got {label}")
    return int(label)


def _by_number(label: object, numbers: dict[str, int], count: int, *, own_numbers: bool) -> int:
    """Check the number of an embedding, and that it means no other class."""
    if not is_integer(label):
        allowed = f"names ({listed(numbers)}) or integers" if numbers else "integers"
        raise ValueError(f"class_labels must be {allowed} from 0 to {count - 1}, got {label!r}")
    number = int(label)
    called = numbers.get(str(number))
    is_plain = called == number or (called is None and not 0 <= number < len(numbers))
    if own_numbers and not is_plain:
        raise ValueError(
            f"class_labels={number} may mean two classes, which are called {listed(numbers)}; "
            "pass the name as a string"
        )
    if not 0 <= number < count:
        known = f", and their names are {listed(numbers)}" if numbers else ""
        raise ValueError(f"class_labels must lie in [0, {count - 1}], got {number}{known}")
    return number


def check_asked_classes(unet: Any, class_labels: object, guidance_scale: float) -> None:  # noqa: ANN401
    """Refuse classes and guidance of a network without classes, and no classes of one with them.

    Arguments:
        unet: The network.
        class_labels: As they were given; None for none.
        guidance_scale: 1 for no guidance.
    Raises:
        ValueError: If they are refused; says what there is to choose from.
    """
    conditioning = facts_of(unet).conditioned_on
    if unet.config.num_class_embeds is not None:
        if class_labels is None:
            raise ValueError(_missing_labels(unet))
    elif class_labels is not None:
        raise ValueError(
            f"class_labels={class_labels!r} needs a class-conditional model: this one has no "
            "classes"
        )
    elif guidance_scale != 1 and conditioning is None:
        raise ValueError(
            f"guidance_scale={guidance_scale} needs a class-conditional model, or one with a "
            "condition: this one has neither"
        )
    if guidance_scale != 1 and conditioning is not None and not conditioning.trains_null:
        raise ValueError(
            f"guidance_scale={guidance_scale} needs a model that was also trained without its "
            "condition: condition_dropout was 0"
        )


def _missing_labels(unet: Any) -> str:  # noqa: ANN401
    """Say which labels a model with classes needs."""
    last, trained = unet.config.num_class_embeds - 1, trained_classes(unet)
    if trained is not None:
        return f"class_labels must be given, one for each image or for all: {listed(trained)}"
    return (
        f"class_labels must be given, 0 to {last}: the model has classes (if it was "
        f"trained here with label_dropout, {last} is the null class, any of them)"
    )


def trained_classes(unet: Any) -> tuple[str | int, ...] | None:  # noqa: ANN401
    """Give the classes that had training images, as class_labels; None where that is not known."""
    facts = facts_of(unet)
    if facts.num_classes is None:
        return None
    counts = facts.class_counts or (1,) * facts.num_classes
    labels = facts.class_names or range(facts.num_classes)
    return tuple(label for label, count in zip(labels, counts, strict=True) if count > 0)


def check_trained(unet: Any, numbers: Sequence[int], *, guided: bool) -> None:  # noqa: ANN401
    """Refuse embeddings that were never trained, as far as that is known.

    Arguments:
        unet: The network.
        numbers: Of the embeddings that are asked for.
        guided: Whether the null class is, too.
    Raises:
        ValueError: If one was not trained; names it.
    """
    facts = facts_of(unet)
    counts, null_class = facts.class_counts, unet.config.num_class_embeds - 1
    untrained = [n for n in dict.fromkeys(numbers) if counts and n < null_class and not counts[n]]
    if untrained:
        names = ", ".join(map(facts.name_of, untrained[:_LISTED]))
        raise ValueError(
            f"class_labels must be trained classes, {listed(trained_classes(unet))}; the training "
            f"data held no images of class {names}"
        )
    if facts.trains_null_class is False and (guided or null_class in numbers):
        asked = "guidance_scale other than 1" if guided else f"class_labels={null_class}"
        raise ValueError(
            f"{asked} needs the null class, which was not trained: label_dropout was 0"
        )


def listed(names: Sequence[object] | dict[str, int]) -> str:
    """List names for a message, the first few of many."""
    shown = [str(name) for name in list(names)[:_LISTED]]
    more = [f"... ({len(names)} in all)"] if len(names) > _LISTED else []
    return ", ".join(shown + more)


def _is_number(name: str) -> bool:
    """Tell whether a name is a whole number as Python writes it."""
    return name.isascii() and name.isdigit() and str(int(name)) == name
