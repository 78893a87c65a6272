"""Images are known again by content: what a model was trained on, and what was held out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.training_runs import blobs, image_data, tiny_config

from ddpm_pipeline.data import training_images
from ddpm_pipeline.data.held_out import split_validation
from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.data.training_images import (
    KnownImages,
    Overlap,
    described_overlap,
    described_reference,
    image_hashes,
    open_split,
    training_overlap,
)
from ddpm_pipeline.likelihood import BoundConfig, bound_of_saved_model
from ddpm_pipeline.training.run import train


def remembered(folder: Path, data: ImageData, size: float = 0.25, seed: int = 3) -> ImageData:
    """A model's folder that tells its images; what was held out."""
    training, held_out = split_validation(data, size, seed)
    about = {"size": size, "seed": seed, "split": None}
    known = KnownImages.of_training(training, held_out, about)
    known.save(folder / training_images.TRAINING_IMAGES_NAME)
    return held_out


def test_hashes_are_of_the_content_and_of_nothing_else(tmp_path: Path) -> None:
    data = image_data()
    hashes = image_hashes(data)
    assert len(set(hashes.tolist())) == len(data)
    assert (image_hashes(data.subset([5, 3])) == hashes[[5, 3]]).all()
    np.save(tmp_path / "other.npy", blobs())
    again = open_images(tmp_path / "other.npy", resolution=8, cache_dir=tmp_path, progress=False)
    assert (image_hashes(again) == hashes).all()


@pytest.mark.parametrize("size", [0.25, 7, 1])
def test_what_was_held_out_can_be_named(tmp_path: Path, size: float) -> None:
    data = image_data()
    held_out = remembered(tmp_path, data, size)
    splits: list[str | None] = []
    found = open_split(tmp_path, "validation", lambda split: splits.append(split) or data)
    assert (
        found.batch(range(len(found))).images == held_out.batch(range(len(found))).images
    ).all()
    assert splits == [None]
    assert training_overlap(tmp_path, found) == Overlap(len(found), 0, len(found))
    trained = len(data) - len(held_out)
    others = open_split(tmp_path, "training", lambda _: data)
    assert training_overlap(tmp_path, others) == Overlap(trained, trained, 0)
    assert training_overlap(tmp_path, data) == Overlap(len(data), trained, len(held_out))
    assert described_overlap(tmp_path, found) == ()


@pytest.mark.parametrize(
    "change", [lambda d: d[::-1].copy(), lambda d: d[:-1], lambda d: np.concatenate([d, d[:1]])]
)
def test_other_data_are_refused(tmp_path: Path, change: object) -> None:
    remembered(tmp_path, image_data())
    other = open_images(change(blobs()), resolution=8, progress=False)
    for split, done in (("validation", "held"), ("training", "left")):
        message = rf"split='{split}' is what validation_size=0\.25 {done}"
        with pytest.raises(ValueError, match=message):
            open_split(tmp_path, split, lambda _: other)


def test_other_training_images_beside_the_same_held_out_ones_are_refused(tmp_path: Path) -> None:
    data = image_data()
    held_out = remembered(tmp_path, data)
    hashes = image_hashes(held_out)
    changed = blobs()
    first = int(np.flatnonzero(~np.isin(image_hashes(data), hashes))[0])
    changed[first] = 255 - changed[first]
    other = open_images(changed, resolution=8, progress=False)
    assert len(open_split(tmp_path, "validation", lambda _: other)) == len(held_out)
    count = len(data) - len(held_out)
    with pytest.raises(ValueError, match=f"{count - 1} of its {count} images are among these"):
        open_split(tmp_path, "training", lambda _: other)


def test_a_model_that_does_not_know_its_images_says_so(tmp_path: Path) -> None:
    def missing(split: str | None) -> None:
        raise ValueError(f"no folder {split}")

    with pytest.raises(ValueError, match=r"no folder training; .* not say what it was trained on"):
        open_split(tmp_path, "training", missing)
    KnownImages.of_training(image_data()).save(tmp_path / training_images.TRAINING_IMAGES_NAME)
    with pytest.raises(ValueError, match=r"no folder validation; .* held none out of its data"):
        open_split(tmp_path, "validation", missing)


def test_other_splits_and_other_models_are_the_datas_own(tmp_path: Path) -> None:
    data = image_data()
    for split in (None, "train", "test"):
        remembered(tmp_path, data)
        assert (
            open_split(tmp_path, split, lambda got, asked=split: (got == asked) and data) is data
        )
    empty = tmp_path / "empty"
    empty.mkdir()
    for split in ("training", "validation"):
        assert open_split(empty, split, lambda asked: asked) == split
    unknown = training_overlap(empty, data)
    assert unknown == Overlap(len(data), None, None)
    for said in (described_overlap(empty, data), described_reference(unknown)):
        assert len(said) == 1
        assert said[0].startswith("it could not be checked whether the model was trained on")


def test_of_many_images_a_sample_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_images, "_MOST_HASHES", 100)
    data = open_images(
        np.random.default_rng(0).integers(0, 256, (1000, 2, 2, 3), dtype=np.uint8),
        resolution=2,
        progress=False,
    )
    held_out = remembered(tmp_path, data, 0.5)
    path = tmp_path / training_images.TRAINING_IMAGES_NAME
    assert path.stat().st_size < 2500
    overlap = training_overlap(tmp_path, data)
    assert 400 < overlap.train < 600
    assert 400 < overlap.validation < 600
    assert training_overlap(tmp_path, held_out).train == 0
    assert len(open_split(tmp_path, "validation", lambda _: data)) == 500


@pytest.mark.parametrize(
    ("overlap", "said"),
    [
        (Overlap(40, 0, None), []),
        (Overlap(40, 0, 0), []),
        (Overlap(40, 36, 0), ["36 of these 40 images (90%) that samples were compared with are"]),
        (
            Overlap(1500, 0, 1200),
            ["1,200 of the 1,500 images that samples were compared with were"],
        ),
        (Overlap(40, 36, 4), ["36 of these 40 images (90%)", "4 of the 40 images that samples"]),
    ],
)
def test_what_distances_to_known_images_mean_is_said(overlap: Overlap, said: list[str]) -> None:
    found = described_reference(overlap)
    assert len(found) == len(said)
    assert all(text.startswith(begin) for text, begin in zip(found, said, strict=True))


def test_held_out_images_of_another_place_are_known_too(tmp_path: Path) -> None:
    data = image_data()
    known = KnownImages.of_training(data.subset(range(30)), data.subset(range(25, 40)))
    assert known.validated_on_training_images == 5
    known.save(tmp_path / training_images.TRAINING_IMAGES_NAME)
    assert training_overlap(tmp_path, data) == Overlap(40, 30, 15)
    assert open_split(tmp_path, "validation", lambda split: split) == "validation"
    assert KnownImages.of_training(data).validated_on_training_images == 0


def test_copies_among_very_many_held_out_images_are_estimated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training_images, "_MOST_HASHES", 200)
    values = np.random.default_rng(0).integers(0, 256, (2000, 2, 2, 3), dtype=np.uint8)
    data = open_images(values, resolution=2, progress=False)
    known = KnownImages.of_training(data.subset(range(1500)), data.subset(range(1000, 2000)))
    assert 400 < known.validated_on_training_images < 600


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / training_images.TRAINING_IMAGES_NAME).write_bytes(b"no")
    with pytest.raises(ValueError, match="does not tell training images"):
        KnownImages.of_model(tmp_path)


def test_bits_per_dim_of_training_images_are_never_without_a_word(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, max_train_steps=2, validation_size=0.1)
    train(config)
    model, data = str(tmp_path / "run"), str(tmp_path / "images.npy")

    def measure(**options: object) -> list[str]:
        bound_of_saved_model(BoundConfig(model=model, data=data, **options))
        return json.loads((tmp_path / "run" / "bound.json").read_text())["warnings"]

    said = " ".join(measure())
    assert "36 of these 40 images (90%) are training images of the model" in said
    assert "training images" not in " ".join(measure(split="validation"))
    np.save(tmp_path / "images.npy", blobs(seed=1))
    assert "training images" not in " ".join(measure())
    with pytest.raises(ValueError, match="0 of its 4 images are among these 40"):
        measure(split="validation")
    (tmp_path / "run" / training_images.TRAINING_IMAGES_NAME).unlink()
    assert "it could not be checked whether the model was trained on" in " ".join(measure())
