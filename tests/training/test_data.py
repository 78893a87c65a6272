"""The images that a run trains on: their order, channels and labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training_runs import blobs, image_data, tiny_config
from PIL import Image

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.data.loader import ImageLoader
from ddpm_pipeline.networks import ModelFacts, facts_of
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.data import open_training_data
from ddpm_pipeline.training.run import train

pytestmark = pytest.mark.usefixtures("random_last_layers")


def test_stock_resumes_with_other_data(tmp_path: Path) -> None:
    """The order of the data goes on where it was: each image once in an epoch, resumed or not."""
    loader = ImageLoader(image_data(), batch_size=4, seed=0)
    first = [next(loader).images for _ in range(4)]
    resumed = ImageLoader(image_data(), batch_size=4, seed=0)
    resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    epoch = torch.cat(first + [next(resumed).images for _ in range(6)])
    expected = torch.from_numpy(blobs())
    assert sorted(map(bytes, epoch.numpy())) == sorted(map(bytes, expected.numpy()))


def test_stock_forces_three_channels_and_decodes_again(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(blobs(12)):
        Image.fromarray(image).save(folder / f"{i}.png")
    config = tiny_config(tmp_path, max_train_steps=1).replace(train_data_dir=str(folder))
    train(config)
    unet = DDPMPipeline.from_pretrained(tmp_path / "run").unet
    assert unet.config.in_channels == 1
    read = Image.open

    def only_grids(source: object, *args: object, **options: object) -> Image.Image:
        assert isinstance(source, Path), "an image was decoded again"
        return read(source, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", only_grids)
        train(config.replace(output_dir=str(tmp_path / "again")))
        with pytest.raises((AssertionError, ValueError), match=r"decoded again|can be read"):
            train(config.replace(output_dir=str(tmp_path / "b"), cache_dir=str(tmp_path / "b")))


def test_stock_has_no_labels(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for i, image in enumerate(blobs(12)):
        (folder / "abc"[i % 3]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "abc"[i % 3] / f"{i}.png")
    config = tiny_config(
        tmp_path, class_conditional=True, embeddings=4, max_train_steps=2
    ).replace(train_data_dir=str(folder))
    train(config)
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "run")
    assert pipeline.unet.config.num_class_embeds == 4
    images = pipeline(
        2, num_inference_steps=2, class_labels=[0, 2], guidance_scale=2.0, output_type="np"
    ).images
    assert images.shape == (2, 8, 8, 1)
    with pytest.raises(ValueError, match="num_classes=5, but the labels have 3 classes"):
        train(config.replace(num_classes=5))
    Image.fromarray(blobs(1)[0]).save(folder / "stray.png")
    with pytest.raises(ValueError, match="labels missing for 1 of 13 images"):
        train(config)


# Classes.


def folder_of(root: Path, *classes: str, each: int = 4) -> str:
    """Grey images of another level for each class, in folders of their names."""
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(each):
            Image.new("L", (8, 8), 40 * k + i).save(root / name / f"{i}.png")
    return str(root)


def conditional(
    tmp_path: Path, data: str, embeddings: int = 4, **options: object
) -> TrainingConfig:
    config = tiny_config(
        tmp_path, class_conditional=True, embeddings=embeddings, max_train_steps=1
    )
    return config.replace(train_data_dir=data, eval_batch_size=4, **options)


def saved_facts(tmp_path: Path) -> ModelFacts:
    return facts_of(DDPMPipeline.from_pretrained(tmp_path / "run").unet)


def test_a_model_remembers_its_classes_and_how_it_was_read(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "pets", "cat", "dog", "eel")
    train(conditional(tmp_path, data, fit="pad", strict_data=True))
    facts = saved_facts(tmp_path)
    assert facts.class_names == ("cat", "dog", "eel")
    assert facts.class_counts == (4, 4, 4)
    assert facts.trains_null_class is True
    expected = {"fit": "pad", "strict_data": True, "center_crop": True}
    assert expected.items() <= facts.reading.items()
    assert not {"value_range", "channels"} & facts.reading.keys()
    record = json.loads((tmp_path / "run" / "training_record.json").read_text())
    assert record["class_names"] == ["cat", "dog", "eel"]
    assert record["class_counts"] == [4, 4, 4]
    images = DDPMPipeline.from_pretrained(tmp_path / "run")(
        1, num_inference_steps=2, class_labels="eel", output_type="np"
    ).images
    assert images.shape == (1, 8, 8, 1)


def test_a_null_class_that_label_dropout_never_put_in_is_not_trained(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "pets", "cat", "dog", "eel")
    train(conditional(tmp_path, data, label_dropout=0.0))
    assert saved_facts(tmp_path).trains_null_class is False


def test_images_that_were_open_already_say_nothing_of_their_reading(tmp_path: Path) -> None:
    train(tiny_config(tmp_path, max_train_steps=1), train_data=image_data())
    assert saved_facts(tmp_path) == ModelFacts()


def held_out(tmp_path: Path, *classes: str) -> dict[int, int]:
    """Open held-out images beside cats, dogs and eels: which class each level has."""
    data = folder_of(tmp_path / "pets", "cat", "dog", "eel")
    other = folder_of(tmp_path / "other", *classes)
    opened = open_training_data(conditional(tmp_path, data, validation_data_dir=other))
    images, labels = opened.validation.batch(range(len(opened.validation)))
    return dict(zip(images[:, 0, 0, 0].tolist(), labels.tolist(), strict=True))


@pytest.mark.parametrize(
    ("classes", "numbers"),
    [
        (("cat", "dog", "eel"), {0: 0, 40: 1, 80: 2}),
        (("dog", "eel"), {0: 1, 40: 2}),
        (("eel",), {0: 2}),
        (("eel", "cat"), {0: 2, 40: 0}),
    ],
)
def test_held_out_classes_are_known_by_name(
    tmp_path: Path, classes: tuple[str, ...], numbers: dict[int, int]
) -> None:
    assert numbers.items() <= held_out(tmp_path, *classes).items()


@pytest.mark.parametrize(
    "classes", [("cat", "dog", "eel", "fox"), ("dog", "eel", "fox"), ("fox",)]
)
def test_a_held_out_class_that_is_not_trained_is_refused(
    tmp_path: Path, classes: tuple[str, ...]
) -> None:
    message = r"validation_data_dir='.*' has images of class 'fox', .* are cat, dog, eel"
    with pytest.raises(ValueError, match=message):
        held_out(tmp_path, *classes)


def numbered(tmp_path: Path, labels: list[int]) -> str:
    np.savez(tmp_path / "numbers.npz", images=blobs(len(labels)), labels=np.array(labels))
    return str(tmp_path / "numbers.npz")


def test_gaps_between_labels_are_closed_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = [3, 70000] * 6
    train(conditional(tmp_path, numbered(tmp_path, labels), embeddings=3))
    message = (
        "the class labels leave gaps: the 2 classes 3, 70000 are numbered 0 to 1 in the model and "
        "called by their labels; num_classes=70001 keeps the labels as numbers"
    )
    assert caplog.messages.count(message) == 1
    facts = saved_facts(tmp_path)
    assert (facts.class_names, facts.class_counts) == (("3", "70000"), (6, 6))


def test_as_many_classes_as_are_asked_for_and_those_without_images_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = conditional(tmp_path, numbered(tmp_path, [0, 3] * 6), embeddings=6, num_classes=5)
    train(config)
    assert (
        "there are no training images of 3 of the 5 classes, which cannot be drawn: 1, 2, 4"
        in caplog.messages
    )
    facts = saved_facts(tmp_path)
    assert (facts.class_names, facts.class_counts) == (None, (6, 0, 0, 6, 0))
    pipe = DDPMPipeline.from_pretrained(tmp_path / "run")
    with pytest.raises(ValueError, match="the training data held no images of class 4"):
        pipe(1, num_inference_steps=2, class_labels=4)


def test_facts_of_a_given_config_are_not_taken_over(tmp_path: Path) -> None:
    train(conditional(tmp_path, folder_of(tmp_path / "pets", "cat", "dog", "eel")))
    path = str(tmp_path / "run" / "unet" / "config.json")
    config = tiny_config(tmp_path / "b", max_train_steps=1)
    other = folder_of(tmp_path / "other", "ant", "bee", "cow")
    config = config.replace(
        class_conditional=True, train_data_dir=other, model_config_name_or_path=path
    )
    train(config)
    assert saved_facts(tmp_path / "b").class_names == ("ant", "bee", "cow")


@pytest.mark.parametrize("drawn", [True, False])
def test_copies_among_held_out_images_are_said_before_the_run(drawn: bool, tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    images = blobs()
    if drawn:
        np.save(tmp_path / "images.npy", np.concatenate([images[:20], images[:20]]))
        data = open_training_data(config.replace(validation_size=10))
        both = data.known_images.validated_on_training_images
        train, held_out = (
            part.batch(range(len(part))).images for part in (data.train, data.validation)
        )
        assert both == sum(any((x == y).all() for y in train) for x in held_out) > 0
    else:
        np.save(tmp_path / "held_out.npy", np.concatenate([images[:3], blobs(seed=5)[:4]]))
        data = open_training_data(
            config.replace(validation_data_dir=str(tmp_path / "held_out.npy"))
        )
        both = 3
    (note,) = data.notes()
    count = 10 if drawn else 7
    assert note.startswith(f"{both} of the {count} held-out images are training images too")
    assert not list(open_training_data(config).notes())


def test_held_out_pictures_have_the_channels_of_training(tmp_path: Path) -> None:
    """Grey files among those for validation are colours too, as images are."""
    rng = np.random.default_rng(0)
    for part, channels in (("train", 3), ("test", 1)):
        for folder, side in (("images", 8), ("low", 4)):
            (tmp_path / folder / part).mkdir(parents=True)
            pixels = rng.integers(0, 256, (4, side, side, channels), np.uint8)
            for i in range(4):
                Image.fromarray(pixels[i].squeeze()).save(tmp_path / folder / part / f"{i}.png")
    data = open_training_data(
        TrainingConfig(
            train_data_dir=str(tmp_path / "images"),
            train_split="train",
            validation_split="test",
            condition_on=str(tmp_path / "low"),
            resolution=8,
            cache_dir=str(tmp_path / "cache"),
            output_dir=str(tmp_path / "run"),
        )
    )
    told = data.validation.batch(range(4)).labels.picture
    with Image.open(tmp_path / "low/test/2.png") as grey:
        assert torch.equal(told[2], torch.from_numpy(np.array(grey)).expand(3, 4, 4))
