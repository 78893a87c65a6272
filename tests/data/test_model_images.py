"""Images in the shape that a model takes: opened, described, and in batches of [-1, 1]."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.image_samples import encoded, noise, write_folder

from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.model_images import (
    ModelBatches,
    check_unchanged_size,
    described_changes,
    open_model_images,
)
from ddpm_pipeline.data.options import ReadingOptions
from ddpm_pipeline.networks import ModelFacts, set_facts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusers import UNet2DModel


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two grey images of 8 × 8 in each of two classes, and one of 12 × 8 in a third."""
    files = {f"{'ab'[i % 2]}/{i}.png": encoded(noise(8, 8, seed=i)) for i in range(4)}
    return write_folder(tmp_path / "data", files | {"c/wide.png": encoded(noise(8, 12, seed=9))})


@pytest.mark.parametrize("channels", [1, 3])
def test_images_have_the_models_size_and_channels(
    tiny_unet: Callable[..., UNet2DModel], folder: Path, channels: int
) -> None:
    data = open_model_images(folder, tiny_unet(channels, sample_size=16).config)
    assert data.shape == (5, channels, 16, 16)
    expected = open_images(folder, resolution=16, channels=channels, progress=False)
    assert torch.equal(data.batch(range(5)).images, expected.batch(range(5)).images)


def test_labels_are_read_for_models_that_take_them(
    tiny_unet: Callable[..., UNet2DModel], folder: Path
) -> None:
    plain, conditional = tiny_unet().config, tiny_unet(num_class_embeds=3).config
    assert open_model_images(folder, plain).labels is None
    assert open_model_images(folder, conditional).labels.tolist() == [0, 0, 1, 1, 2]
    assert open_model_images(folder, conditional, labels=False).labels is None
    assert open_model_images(folder, plain, labels=True).num_classes == 3


def test_the_split_and_the_fit_are_those_asked_for(
    tiny_unet: Callable[..., UNet2DModel], folder: Path
) -> None:
    data = open_model_images(
        folder, tiny_unet(sample_size=16).config, split="a", fit="pad", labels=False
    )
    images = data.batch(range(2)).images
    assert data.was_padded
    np.testing.assert_array_equal(images[1, 0, 4:12, 4:12], noise(8, 8, seed=2))
    assert not images[:, :, :4].any()


@pytest.mark.parametrize(
    ("split", "side", "message"),
    [
        ("c", 8, r"data=.* has images of another size than the model's 8×8; fit='resize' scales"),
        ("a", 16, r"has images of another size than the model's 16×16"),
    ],
)
def test_an_exact_fit_refuses_other_sizes(
    tiny_unet: Callable[..., UNet2DModel], folder: Path, split: str, side: int, message: str
) -> None:
    config = tiny_unet(sample_size=side).config
    assert len(open_model_images(folder, config, split=split)) > 0
    with pytest.raises(ValueError, match=message):
        open_model_images(folder, config, split=split, fit="exact")


def test_an_exact_fit_takes_images_of_that_size(
    tiny_unet: Callable[..., UNet2DModel], folder: Path
) -> None:
    data = open_model_images(folder, tiny_unet().config, split="a", fit="exact")
    np.testing.assert_array_equal(data.batch([1]).images[0, 0], noise(8, 8, seed=2))


def test_other_channels_are_converted_or_refused(
    tiny_unet: Callable[..., UNet2DModel], folder: Path
) -> None:
    config = tiny_unet(3).config
    assert open_model_images(folder, config).changes["L to RGB"] == 5
    message = r"data=.* has images of 1 channel\(s\), the model makes images of 3"
    with pytest.raises(ValueError, match=message):
        open_model_images(folder, config, other_channels="refuse")


def test_images_are_brought_to_the_height_and_width_of_the_model(
    tiny_unet: Callable[..., UNet2DModel], folder: Path
) -> None:
    for size in ((8, 16), [8, 16]):  # as it is made, and as a saved config has it
        data = open_model_images(folder, tiny_unet(sample_size=size).config)
        assert data.shape[2:] == (8, 16)
    with pytest.raises(ValueError, match="sample_size of the model must be an integer"):
        open_model_images(folder, tiny_unet(sample_size=None).config)
    data = open_images(noise(2, 8, 8), progress=False, resolution=(8, 4))
    with pytest.raises(ValueError, match="another size than the model's 8×4"):
        check_unchanged_size(data, "samples")


@pytest.mark.parametrize("options", [{"resolution": 4}, {"resolution": 9, "fit": "pad"}])
def test_a_changed_size_is_refused_under_the_callers_name(options: dict[str, object]) -> None:
    data = open_images(noise(2, 8, 8), progress=False, **options)
    side = options["resolution"]
    message = rf"^samples has images of another size than the model's {side}×{side}, sorry$"
    with pytest.raises(ValueError, match=message):
        check_unchanged_size(data, "samples", ", sorry")
    check_unchanged_size(open_images(noise(2, 8, 8), resolution=8, progress=False), "samples")


def test_changes_are_described_with_what_they_mean() -> None:
    assert described_changes(open_images(noise(2, 8, 8), resolution=8, progress=False)) == ()
    wide = open_images(noise(2, 8, 12), resolution=4, progress=False)
    [message] = described_changes(wide)
    assert "(2 resized, 2 cropped)" in message
    assert "scaling smooths noise away" in message
    assert "a part of each is not measured" in message
    assert "border" not in message


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batches_are_all_images_in_order_and_can_be_had_again(batch_size: int) -> None:
    levels = np.arange(7, dtype=np.uint8) * 40
    images = np.tile(levels[:, None, None], (1, 4, 4))
    data = open_images(images, resolution=4, labels=list(range(7)), progress=False)
    batches = ModelBatches(data, batch_size)
    for _ in range(2):
        found = list(batches)
        assert len(found) == len(batches)
        assert [len(x_0) for x_0, _ in found[:-1]] == [batch_size] * (len(found) - 1)
        values = torch.cat([x_0 for x_0, _ in found])[:, 0, 0, 0].double()
        exact = [float(Fraction(2 * int(k), 255) - 1) for k in levels]
        torch.testing.assert_close(values, torch.tensor(exact).double(), atol=6e-8, rtol=0)
        assert torch.cat([labels for _, labels in found]).tolist() == list(range(7))


def test_batches_without_labels_have_none() -> None:
    data = open_images(noise(3, 4, 4), resolution=4, progress=False)
    assert [labels for _, labels in ModelBatches(data, 2)] == [None, None]


def remembering(unet: UNet2DModel, reading: ReadingOptions, **facts: object) -> UNet2DModel:
    """A model that was trained on images read in such a way."""
    set_facts(unet, ModelFacts(reading=reading.to_dict(), **facts))
    return unet


def test_a_place_drawn_anew_cannot_be_measured(
    tiny_unet: Callable[..., UNet2DModel], folder: Path
) -> None:
    unet = tiny_unet()
    with pytest.raises(ValueError, match="center_crop must be on: a measurement is of the middle"):
        open_model_images(folder, unet, reading=ReadingOptions(center_crop=False))
    # What training did is no mistake of who measures.
    remembering(unet, ReadingOptions(center_crop=False))
    assert open_model_images(folder, unet).was_cropped


def test_what_training_refused_is_refused(
    tiny_unet: Callable[..., UNet2DModel], folder: Path
) -> None:
    (folder / "a" / "broken.png").write_bytes(b"no")
    unet = remembering(tiny_unet(), ReadingOptions(strict_data=True))
    with pytest.raises(ValueError, match=r"a/broken\.png .* cannot be read; strict refuses that"):
        open_model_images(folder, unet)
    given = ReadingOptions(strict_data=False)
    assert len(open_model_images(folder, unet, reading=given)) == 5


def test_a_label_column_that_is_remembered_counts_where_labels_are_read(
    tiny_unet: Callable[..., UNet2DModel], folder: Path
) -> None:
    rows = [f"{'ab'[i % 2]}/{i}.png,{i % 2}" for i in range(4)]
    text = "\n".join(["file_name,kind", *rows, "c/wide.png,1"])
    (folder / "metadata.csv").write_text(text)
    unet = remembering(
        tiny_unet(num_class_embeds=3),
        ReadingOptions(label_column="kind"),
        class_counts=(3, 2),
    )
    assert open_model_images(folder, unet).labels.tolist() == [0, 0, 1, 1, 1]
    assert open_model_images(folder, unet, labels=False).labels is None


def test_images_of_a_class_that_was_never_trained_are_said(
    tiny_unet: Callable[..., UNet2DModel], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unet = remembering(
        tiny_unet(num_class_embeds=4),
        ReadingOptions(),
        class_names=("a", "b", "c"),
        class_counts=(3, 0, 2),
    )
    assert open_model_images(folder, unet).class_counts == {"a": 2, "b": 2, "c": 1}
    said = [record.getMessage() for record in caplog.records]
    assert [text for text in said if "trained on none" in text] == [
        f"data={str(folder)!r} has images of class 'b', of which the model was trained on none"
    ]
