"""Classes by name and by number: which is meant, which there are, which were trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ddpm_pipeline.networks.classes import (
    check_trained,
    class_numbers,
    listed,
    trained_classes,
)
from ddpm_pipeline.networks.model_facts import ModelFacts, set_facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel

PETS = ("cat", "dog", "eel")
SPARSE = ("3", "70000")  # labels that left gaps, or folders
DIGITS = tuple(sorted(map(str, range(12))))  # "0", "1", "10", "11", "2", ...


@pytest.fixture
def make(tiny_unet: Callable[..., UNet2DModel]) -> Callable[..., UNet2DModel]:
    def made(names: tuple[str, ...] | None, **facts: object) -> UNet2DModel:
        unet = tiny_unet(num_class_embeds=4 if names is None else len(names) + 1)
        set_facts(unet, ModelFacts(class_names=names, **facts))
        return unet

    return made


@pytest.mark.parametrize(
    ("names", "labels", "numbers"),
    [
        (PETS, ["cat", "eel", "cat"], [0, 2, 0]),
        (PETS, [2, "0", np.int64(1)], [2, 0, 1]),
        (PETS, ["3", 3], [3, 3]),  # the null class
        (None, ["0", 2, "3"], [0, 2, 3]),
        (SPARSE, ["70000", "3"], [1, 0]),
        (SPARSE, [2], [2]),  # the null class: no class is called 2
        (DIGITS, ["2", "10", 0, 1], [4, 2, 0, 1]),
        (DIGITS, ["12", 12], [12, 12]),  # the null class
        (("0", "1"), [1, "0"], [1, 0]),
        ((), [], []),
    ],
)
def test_the_class_that_is_meant(
    make: Callable, names: tuple[str, ...] | None, labels: list, numbers: list[int]
) -> None:
    assert class_numbers(make(names), labels) == numbers


@pytest.mark.parametrize(
    ("names", "label", "message"),
    [
        (PETS, "fox", "class_labels must be among cat, dog, eel, got 'fox'"),
        (PETS, "Cat", "class_labels must be among cat, dog, eel, got 'Cat'"),
        (PETS, "", "class_labels must be among cat, dog, eel, got ''"),
        (PETS, "-1", "class_labels must be among cat, dog, eel, got '-1'"),
        (PETS, "9", r"class_labels must lie in \[0, 3\], got 9"),
        (PETS, "4", r"class_labels must lie in \[0, 3\], got 4$"),
        (None, "4", r"class_labels must lie in \[0, 3\], got 4$"),
        (PETS, 4, r"lie in \[0, 3\], got 4, and their names are cat, dog, eel"),
        (PETS, -1, r"lie in \[0, 3\], got -1"),
        (PETS, 1.0, r"must be names \(cat, dog, eel\) or integers from 0 to 3, got 1.0"),
        (PETS, True, "or integers from 0 to 3, got True"),
        (PETS, None, "or integers from 0 to 3, got None"),
        (None, "cat", "must be integers from 0 to 3, got 'cat': the model keeps no names"),
        (None, ["cat"], r"must be integers from 0 to 3, got \['cat'\]"),
        (SPARSE, "0", "must be among 3, 70000, got '0'"),
        (SPARSE, 0, "class_labels=0 may mean two classes, which are called 3, 70000; pass the"),
        (SPARSE, 3, "class_labels=3 may mean two classes"),
        (DIGITS, 2, "class_labels=2 may mean two classes"),
        (("1", "2"), 2, "class_labels=2 may mean two classes"),
    ],
)
def test_what_is_no_class_is_named(
    make: Callable, names: tuple[str, ...] | None, label: object, message: str
) -> None:
    labels = (label,) if not isinstance(label, list) else [tuple(label)]
    message = message.replace(r"\['cat'\]", r"\('cat',\)")
    with pytest.raises(ValueError, match=message):
        class_numbers(make(names), labels)


def test_trained_classes_are_those_with_images(make: Callable) -> None:
    assert trained_classes(make(PETS, class_counts=(1, 0, 2))) == ("cat", "eel")
    assert trained_classes(make(PETS)) == PETS
    assert trained_classes(make(None, class_counts=(1, 0, 2))) == (0, 2)
    assert trained_classes(make(None)) is None


def test_untrained_embeddings_are_refused_by_name(make: Callable) -> None:
    unet = make(PETS, class_counts=(1, 0, 2), trains_null_class=False)
    check_trained(unet, [0, 2], guided=False)
    with pytest.raises(
        ValueError, match=r"trained classes, cat, eel; .* no images of class 'dog'"
    ):
        check_trained(unet, [0, 1], guided=False)
    with pytest.raises(ValueError, match="guidance_scale other than 1 needs the null class"):
        check_trained(unet, [0], guided=True)
    with pytest.raises(ValueError, match="class_labels=3 needs the null class, which was not tr"):
        check_trained(unet, [3], guided=False)
    unnamed = make(None, class_counts=(1, 0, 2))
    with pytest.raises(ValueError, match=r"trained classes, 0, 2; .* no images of class 1"):
        check_trained(unnamed, [1], guided=True)
    check_trained(make(None), [0, 1, 2, 3], guided=True)  # nothing is known


def test_many_names_are_cut_short() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(list(map(str, range(100)))).endswith("18, 19, ... (100 in all)")


def test_a_name_is_known_however_its_letters_are_composed(make: Callable) -> None:
    unet = make(("cafe\u0301", "dog"))
    assert class_numbers(unet, ["caf\u00e9", "cafe\u0301", " dog "]) == [0, 0, 1]
    with pytest.raises(ValueError, match="class_labels must be among"):
        class_numbers(unet, ["cafe"])
