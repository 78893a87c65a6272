"""Classes of a model and of images, by name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ddpm_pipeline.networks import ModelFacts
from ddpm_pipeline.training.matching import match_classes


def images(names: tuple[str, ...] | None, counts: tuple[int, ...]) -> SimpleNamespace:
    return SimpleNamespace(class_names=names, num_classes=len(counts), class_counts=counts)


CATS = ModelFacts(class_names=("cat", "dog"), class_counts=(40, 38), trains_null_class=True)
NUMBERS = ModelFacts(class_counts=(5, 6), trains_null_class=True)


def test_names_are_matched_and_new_ones_come_last() -> None:
    plan = match_classes(CATS, 3, images(("bee", "dog"), (7, 8)))
    assert plan.names == ("cat", "dog", "bee")
    assert plan.rows == (0, 1, None, 2)
    assert plan.new == (2,)
    facts = plan.facts(ModelFacts(class_counts=(0, 8, 7), trains_null_class=True), trained=True)
    assert facts.class_counts == (40, 8, 7)  # the cat keeps what it was trained on
    assert facts.class_names == ("cat", "dog", "bee")
    described = plan.describe(images(plan.names, (0, 8, 7)))
    assert described == ("1 of the model (dog); 1 drawn anew (bee); 1 kept without images (cat)")


def test_what_was_drawn_and_not_trained_is_known_as_such() -> None:
    plan = match_classes(CATS, 3, images(("bee", "dog", "emu"), (7, 8, 0)))
    found = ModelFacts(class_counts=(0, 8, 7, 0), trains_null_class=False)
    assert plan.facts(found, trained=True).class_counts == (40, 8, 7, 0)  # no emu was seen
    assert plan.facts(found, trained=False).class_counts == (40, 38, 0, 0)
    assert plan.facts(found, trained=True).trains_null_class is True  # it was before
    fresh = match_classes(ModelFacts(), None, images(("bee",), (7,)))
    assert fresh.rows == (None, None)
    untold = match_classes(
        ModelFacts(class_names=("cat", "dog")), 3, images(("cat", "dog"), (1, 1))
    )
    assert untold.facts(found, trained=True).trains_null_class is None
    dropped = ModelFacts(class_counts=(1, 1), trains_null_class=True)
    assert untold.facts(dropped, trained=True).trains_null_class is True
    bees = ModelFacts(class_counts=(7,), trains_null_class=False)
    assert fresh.facts(bees, trained=True).trains_null_class is False
    assert fresh.facts(ModelFacts(class_counts=(7,)), trained=False).class_counts == (0,)


@pytest.mark.parametrize(
    ("facts", "embeddings", "data", "names", "rows"),
    [
        (CATS, 3, images(("cat", "dog"), (1, 1)), ("cat", "dog"), None),
        (CATS, 3, images(("dog",), (1,)), ("cat", "dog"), None),
        (CATS, 3, images(None, (1, 1)), ("cat", "dog"), None),
        (NUMBERS, 3, images(None, (1, 1)), None, None),
        (NUMBERS, 3, images(None, (0, 0, 4)), None, (0, 1, None, 2)),
        (NUMBERS, 3, images(("2", "3"), (1, 1)), None, (0, 1, None, None, 2)),
        (ModelFacts(), 4, images(None, (1, 1)), None, None),  # the last becomes the null class
        (ModelFacts(), 2, images(None, (1, 1)), None, (0, 1, None)),
        (ModelFacts(), 2, images(("a",), (1,)), ("0", "1", "a"), (0, 1, None, None)),
    ],
)
def test_numbers_and_names(facts, embeddings, data, names, rows) -> None:  # noqa: ANN001
    plan = match_classes(facts, embeddings, data)
    assert (plan.names, plan.rows) == (names, rows)


def test_it_is_said_which_embedding_of_a_foreign_model_becomes_the_null_class() -> None:
    two = images(None, (1, 1))
    said = match_classes(ModelFacts(), 4, two).describe(images(None, (1, 1, 0)))
    assert said.endswith("; embedding 3, its last, is taken for the null class")
    assert "null" not in match_classes(NUMBERS, 3, two).describe(two)


def test_numbers_say_nothing_of_names() -> None:
    with pytest.raises(
        ValueError, match=r"have names \(cat, dog\), and those of the images are 3"
    ):
        match_classes(CATS, 3, images(None, (1, 1, 1)))
