"""Classes as often as the data have them: shares, prefixes, seeds, names."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.evaluation.class_frequencies import ChosenClasses, classes_as_often


def chosen(labels: list[int], count: int, *, seed: int = 0, **config: object) -> ChosenClasses:
    images = np.zeros((len(labels), 8, 8), np.uint8)
    data = open_images(images, resolution=8, labels=labels, progress=False)
    return classes_as_often(data, config, count, seed=seed)


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=30),
    count=st.integers(1, 200),
    seed=st.integers(0, 10),
)
def test_every_class_comes_as_often_as_its_share(labels: list[int], count: int, seed: int) -> None:
    data = SimpleNamespace(labels=torch.tensor(labels), class_names=None)
    data = type("Data", (SimpleNamespace,), {"__len__": lambda _: len(labels)})(**vars(data))
    found = classes_as_often(data, {}, count, seed=seed).numbers
    assert len(found) == count
    assert set(found) <= set(labels)
    for label in set(labels):
        expected = count * labels.count(label) / len(labels)
        assert abs(found.count(label) - expected) < 3.5


def test_an_image_keeps_its_class_whatever_their_number_is() -> None:
    few, many = (chosen([0, 1, 1, 2], n, seed=4).numbers for n in (5, 50))
    assert many[:5] == few
    assert chosen([0, 1, 1, 2], 50, seed=5).numbers != many


@pytest.mark.parametrize(
    ("config", "labels"),
    [({}, {0, 1}), ({"_ddpm_pipeline": {"class_names": ["3", "7"]}}, {"3", "7"})],
)
def test_a_model_that_knows_names_is_given_them(
    config: dict[str, object], labels: set[object]
) -> None:
    data = open_images(
        np.zeros((4, 8, 8), np.uint8), resolution=8, labels=["3", "7", "7", "7"], progress=False
    )
    found = classes_as_often(data, config, 20, seed=0)
    assert set(found.labels) == labels
    assert found.counts == {"3": 5, "7": 15}
