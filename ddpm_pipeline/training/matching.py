"""The classes of a pretrained model and those of new images, matched by name.

    plan = match_classes(facts, embeddings=4, data=data)
    plan.rows           [0, 1, 2, None, 3]: of each embedding that there will be, the trained one
    plan.names          ("cat", "cow", "dog", "emu"), those of the model before those that are new
    plan.renumbered(config, data)       the images, with the numbers of these classes

The last embedding is the null class. A class that the images lack keeps its embedding and the
count of images that it was trained on; one that the model lacks is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ddpm_pipeline.common import normalized
from ddpm_pipeline.data import with_classes
from ddpm_pipeline.networks import ModelFacts, listed
from ddpm_pipeline.training.data import TrainingData, data_from_images

if TYPE_CHECKING:
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["ClassPlan", "match_classes"]


@dataclass(frozen=True)
class ClassPlan:
    """The classes of a model that was pretrained, and of the images that it goes on with.

    Arguments:
        names: Of all classes; None where they are numbers.
        count: How many there are, without the null class.
        rows: For each embedding, that of the pretrained model, or None for a new one; None if the
            network's are left as they are.
        before: Images that each class of the model was trained on; None where that is not known.
        knew_null: Whether the null class was trained before; None if the model does not say.
        tells: Whether the model can say afterwards what its classes are.
    """

    names: tuple[str, ...] | None
    count: int
    rows: tuple[int | None, ...] | None
    before: tuple[int, ...] | None
    knew_null: bool | None
    tells: bool = True

    def renumbered(self, config: TrainingConfig, data: TrainingData) -> TrainingData:
        """Give images the numbers of these classes.

        Raises:
            ValueError: If they are a stream, whose classes are numbered already.
        """
        if data.num_classes == self.count and data.class_names == self.names:
            return data
        if data.train is None:
            raise ValueError(
                "pretrained_model_name_or_path: the classes of a stream must be those of the "
                f"model, in their order: {_called(self.names, self.count)}"
            )
        parts = [
            None
            if part is None
            else with_classes(part, self.names, self.count, "the training data")
            for part in (data.train, data.validation)
        ]
        opened = data_from_images(config.replace(num_classes=self.count), *parts)
        return replace(opened, reading=data.reading, held_out=data.held_out)

    def facts(self, facts: ModelFacts, *, trained: bool) -> ModelFacts:
        """Give what the model is to remember of its classes.

        Arguments:
            facts: Of the images alone.
            trained: Whether the run makes updates; otherwise what is new stays as it was drawn.
        """
        trains_null = (trained and bool(facts.trains_null_class)) or self.knew_null
        if not self.tells:
            unknown = replace(facts, class_names=None, class_counts=None)
            return replace(unknown, trains_null_class=trains_null)
        counts = self._counts(facts.class_counts, trained=trained)
        return replace(
            facts, class_names=self.names, class_counts=counts, trains_null_class=trains_null
        )

    def _counts(self, found: tuple[int, ...] | None, *, trained: bool) -> tuple[int, ...] | None:
        """Count the images that each class was trained on last."""
        new = set(self.new)
        if self.before is None and trained and found and all(found[n] for n in new):
            return None  # all were trained, on numbers of images that nobody noted
        before = self.before or (1,) * (self.count - len(new))
        known = (*before, *(0,) * (self.count - len(before)))
        if not trained:
            return known
        found = found or (0,) * self.count
        return tuple(now or then for now, then in zip(found, known, strict=True))

    @property
    def new(self) -> tuple[int, ...]:
        """The numbers of the classes that are drawn."""
        rows = self.rows or ()
        return tuple(number for number, row in enumerate(rows[:-1]) if row is None)

    def describe(self, data: TrainingData) -> str:
        """Say which classes are kept, drawn, and absent from the images."""
        names = self.names or tuple(map(str, range(self.count)))
        counts = data.class_counts or (0,) * self.count
        new = set(self.new)
        kept = [n for i, n in enumerate(names) if i not in new and counts[i]]
        absent = [n for i, n in enumerate(names) if i not in new and not counts[i]]
        parts = (
            ("of the model", kept),
            ("drawn anew", [names[i] for i in self.new]),
            ("kept without images", absent),
        )
        said = [f"{len(some)} {words} ({listed(some)})" for words, some in parts if some]
        if self.rows is None and not self.tells:
            said.append(f"embedding {self.count}, its last, is taken for the null class")
        return "; ".join(said)


def match_classes(facts: ModelFacts, embeddings: int | None, data: TrainingData) -> ClassPlan:
    """Match the classes of images to those of a model.

    Arguments:
        facts: Of the model.
        embeddings: How many class embeddings its network has; None for none.
        data: The images, with labels.
    Raises:
        ValueError: If the classes of one have names, those of the other numbers, and there are
            more of them than the model has.
    """
    here = data.class_names or tuple(map(str, range(data.num_classes)))
    if embeddings is None:
        rows = (None,) * (len(here) + 1)
        return ClassPlan(data.class_names, len(here), rows, (), knew_null=False)
    if facts.num_classes is None:
        return _with_unknown(here, embeddings, are_numbers=_are_numbers(here))
    count, knew_null = facts.num_classes, facts.trains_null_class
    names = facts.class_names or tuple(map(str, range(count)))
    if data.class_names is None and not _are_numbers(names):
        if data.num_classes > count:
            raise ValueError(
                f"the classes of the pretrained model have names ({listed(names)}), and those of "
                f"the images are {data.num_classes} numbers: give the images' classes names, as "
                "folders or labels"
            )
        new = ()
    else:
        known = set(map(normalized, names))
        new = tuple(name for name in here if normalized(name) not in known)
    union = (*names, *new)
    plain = union == tuple(map(str, range(len(union)))) and facts.class_names is None
    rows = (*range(count), *(None,) * len(new), count) if new else None
    return ClassPlan(
        None if plain else union, len(union), rows, facts.class_counts, knew_null=knew_null
    )


def _with_unknown(here: Sequence[str], embeddings: int, *, are_numbers: bool) -> ClassPlan:
    """Match to a model that does not say what its class embeddings are.

    Numbers are taken for its numbers. If there are fewer of them than embeddings, the last one
    becomes the null class, as in models of ours.
    """
    if are_numbers:
        largest = max(map(int, here))
        if largest + 1 < embeddings:
            return ClassPlan(None, embeddings - 1, None, None, knew_null=False, tells=False)
        count, names = largest + 1, None
    else:
        names = (*map(str, range(embeddings)), *here)
        count = len(names)
    rows = (*range(embeddings), *(None,) * (count - embeddings + 1))
    return ClassPlan(names, count, rows, None, knew_null=False)


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name.isdecimal() and str(int(name)) == name for name in names)


def _called(names: Sequence[str] | None, count: int) -> str:
    return f"0 to {count - 1}" if names is None else listed(names)
