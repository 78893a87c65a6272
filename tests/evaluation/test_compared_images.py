"""The reference and the samples: complete, comparable, and the same each time."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from helpers.image_samples import encoded, flat, noise, write_folder, write_tar

from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.evaluation.compared_images import (
    choose_classes,
    open_reference,
    open_samples,
    random_subset,
    read_manifest,
)
from ddpm_pipeline.evaluation.config import EvaluateConfig
from ddpm_pipeline.pipelines.writing import SAMPLES_MANIFEST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusers import UNet2DModel


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))


def numbered(count: int = 20, side: int = 8, channels: int = 1) -> ImageData:
    """Images of levels 0, 1, ..."""
    levels = np.arange(count, dtype=np.uint8)[:, None, None, None]
    images = np.tile(levels, (1, side, side, channels))
    return open_images(images, resolution=side, progress=False)


def levels(data: ImageData) -> list[int]:
    return data.batch(range(len(data))).images[:, 0, 0, 0].tolist()


def test_a_random_subset_is_the_same_each_time_in_order() -> None:
    data = numbered()
    first, second = random_subset(data, 8, "count"), random_subset(data, 8, "count")
    assert levels(first) == levels(second) == sorted(set(levels(first)))
    assert levels(first) != list(range(8))
    assert first.fingerprint == second.fingerprint != data.fingerprint
    assert random_subset(data, None, "count") is data
    assert levels(random_subset(data, 20, "count")) == list(range(20))


@pytest.mark.parametrize("count", [0, -1, 21, 2.5])
def test_a_subset_that_cannot_be_drawn_names_its_option(count: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^num_x must be an integer from 1 to 20, .* got {count}$"
    ):
        random_subset(numbered(), count, "num_x")


@pytest.mark.parametrize(("split", "num_reference"), [(None, None), ("train", 3)])
def test_the_reference_is_what_the_config_names(
    tiny_unet: Callable[..., UNet2DModel],
    tmp_path: Path,
    split: str | None,
    num_reference: int | None,
) -> None:
    files = {f"{part}/{i}.png": flat(10 * p + i) for p, part in enumerate("ab") for i in range(5)}
    write_folder(tmp_path / "data", {f"train/{name}": file for name, file in files.items()})
    write_folder(tmp_path / "data", {"test/a/x.png": flat(99)})
    config = EvaluateConfig(
        model=str(tmp_path),
        data=str(tmp_path / "data"),
        split=split,
        num_reference=num_reference,
        num_nearest=0,
    )
    unet = tiny_unet(num_class_embeds=2)
    sampler = SimpleNamespace(pipe=SimpleNamespace(unet=unet), is_conditioned=False)
    data = open_reference(config, sampler)
    assert len(data) == (num_reference or 10)
    assert set(levels(data)) <= {10 * p + i for p in range(2) for i in range(5)}
    assert data.labels is None  # also for a model that takes them


def test_samples_of_any_program_are_opened(tmp_path: Path) -> None:
    files = {f"{i}.png": flat(i) for i in range(5)}
    write_folder(tmp_path / "folder", files)
    np.savez(tmp_path / "x.npz", images=np.stack([np.full((8, 8), i, np.uint8) for i in range(5)]))
    for name in ("folder", "x.npz"):
        assert levels(open_samples(str(tmp_path / name), numbered())) == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("quiet_datasets")
def test_shards_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for s in range(2):
        write_tar(
            tmp_path / "shards" / f"{s}.tar",
            {f"{i}.png": flat(i) for i in range(3 * s, 3 * s + 3)},
        )
    samples = str(tmp_path / "shards")
    assert levels(open_samples(samples, numbered())) == [0, 1, 2, 3, 4, 5]
    (tmp_path / "shards" / "1.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1\.tar' is empty, as a crash leaves it"):
        open_samples(samples, numbered())


def test_a_manifest_says_how_many_there_must_be(tmp_path: Path) -> None:
    write_folder(tmp_path / "samples", {f"{i}.png": flat(i) for i in range(5)})
    manifest = tmp_path / "samples" / SAMPLES_MANIFEST
    manifest.write_text(json.dumps({"num_images": 5, "seed": 3}))
    assert read_manifest(tmp_path / "samples") == {"num_images": 5, "seed": 3}
    assert len(open_samples(str(tmp_path / "samples"), numbered())) == 5
    manifest.write_text(json.dumps({"num_images": 6}))
    with pytest.raises(ValueError, match="holds 5 of 6 images; run `ddpm sample` again"):
        open_samples(str(tmp_path / "samples"), numbered())


def test_images_of_other_programs_have_no_manifest(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=noise(2, 8, 8))
    assert read_manifest(tmp_path) == {}
    assert read_manifest(tmp_path / "x.npz") == {}


@pytest.mark.parametrize(
    ("side", "channels", "message"),
    [
        (16, 1, r"samples='.*' has images of another size than the model's 8×8$"),
        (8, 3, r"samples='.*' has images of 3 channel\(s\), the reference of 1$"),
    ],
)
def test_samples_of_another_shape_are_refused(
    tmp_path: Path, side: int, channels: int, message: str
) -> None:
    write_folder(tmp_path / "samples", {"x.png": encoded(noise(side, side, channels).squeeze())})
    with pytest.raises(ValueError, match=message):
        open_samples(str(tmp_path / "samples"), numbered())


def test_samples_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "samples", {"0.png": flat(1), "1.png": flat(1)[:-30]})
    with pytest.raises(ValueError, match=r"1\.png.* cannot be read; strict refuses that"):
        open_samples(str(tmp_path / "samples"), numbered())


def test_classes_are_chosen_from_data_that_are_read_as_the_options_say(
    tiny_unet: Callable[..., UNet2DModel], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).random((8, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(8) % 2)
    sampler = SimpleNamespace(pipe=SimpleNamespace(unet=tiny_unet(num_class_embeds=3)))
    options = {"model": str(tmp_path), "data": str(tmp_path / "data.npz"), "num_images": 6}
    chosen = choose_classes(EvaluateConfig(**options, value_range=(0.0, 1.0)), sampler)
    assert sorted(chosen.numbers) == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ValueError, match=r"class_labels must be given: .*value_range"):
        choose_classes(EvaluateConfig(**options), sampler)
