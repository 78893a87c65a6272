"""What images are conditioned on, as data give it: columns of numbers, and pictures by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.unets import make_tiny_unet
from PIL import Image

from ddpm_pipeline.data.conditions import conditioning_of, with_conditioning
from ddpm_pipeline.data.held_out import split_validation
from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.data.model_images import ModelBatches, open_model_images
from ddpm_pipeline.data.options import ReadingOptions
from ddpm_pipeline.data.reading_conditions import RememberedColumn
from ddpm_pipeline.networks import Conditioning, ModelFacts, set_facts
from ddpm_pipeline.networks.condition import Condition


def grey(folder: Path, levels: dict[str, int], side: int) -> Path:
    """Write pictures of one grey level each."""
    for name, level in levels.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((side, side), level, np.uint8)).save(folder / name)
    return folder


NAMES = ["a/1.png", "a/2.png", "b/1.png", "c.png"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return grey(tmp_path / "images", {name: 50 + i for i, name in enumerate(NAMES)}, 8)


def opened(source: object, tmp_path: Path, **options: object) -> ImageData:
    cache = {"cache_dir": tmp_path / "cache", "progress": False}
    return open_images(source, resolution=8, **cache, **options)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_numbers_of_metadata_go_by_name(images: Path, tmp_path: Path, kind: str) -> None:
    rows = [{"file_name": name, "x": i + 0.5, "y": -i} for i, name in enumerate(NAMES)][::-1]
    if kind == "csv":
        lines = ["file_name,x,y", *(f"{r['file_name']},{r['x']},{r['y']}" for r in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    (images / f"metadata.{kind}").write_text("\n".join(lines))
    data = opened(images, tmp_path, condition_vector=("y", "x"))
    told = data.batch([3, 1]).labels
    assert isinstance(told, Condition)
    assert told.vector.tolist() == [[-3, 3.5], [-1, 1.5]]
    part = data.subset([2, 3]).subset([1])
    assert part.batch([0]).labels.vector.tolist() == [[-3, 3.5]]
    assert data.fingerprint != opened(images, tmp_path).fingerprint
    assert data.fingerprint != opened(images, tmp_path, condition_vector=("x", "y")).fingerprint
    wanted = conditioning_of(data.given, "bicubic", trains_null=False)
    assert (wanted.columns, wanted.low, wanted.high) == (("y", "x"), (-3, 0.5), (0, 3.5))


def test_numbers_of_an_archive_may_be_rows(tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(4, 3)
    archive = {"images": np.zeros((4, 8, 8), np.uint8), "v": values, "w": values[:, 0]}
    np.savez(tmp_path / "x.npz", **archive)
    data = opened(tmp_path / "x.npz", tmp_path, condition_vector=("w", "v"))
    assert data.given.columns == ("w", "v[0]", "v[1]", "v[2]")
    assert data.batch([2]).labels.vector.tolist() == [[6, 6, 7, 8]]


def test_numbers_and_pictures_of_a_data_set(tmp_path: Path, quiet_datasets: None) -> None:
    datasets = pytest.importorskip("datasets")
    pictures = [Image.fromarray(np.full((8, 8), i, np.uint8)) for i in range(4)]
    small = [Image.fromarray(np.full((4, 4), 9 * i, np.uint8)) for i in range(4)]
    features = datasets.Features(
        image=datasets.Image(), low=datasets.Image(), v=datasets.Value("float32")
    )
    content = {"image": pictures, "low": small, "v": [0.0, 1.0, 2.0, 3.0]}
    data = datasets.Dataset.from_dict(content, features=features)
    found = opened(
        data, tmp_path, image_column="image", condition_on="low", condition_vector=("v",)
    )
    told = found.batch([3, 0]).labels
    assert told.vector.tolist() == [[3], [0]]
    assert told.picture.shape == (2, 1, 4, 4)
    assert told.picture[:, 0, 0, 0].tolist() == [27, 0]
    with pytest.raises(ValueError, match=r"condition_vector='w' must be one of \['image', 'low'"):
        opened(data, tmp_path, image_column="image", condition_vector=("w",))


def test_pictures_go_by_name_whatever_their_format(images: Path, tmp_path: Path) -> None:
    levels = {f"{name[:-4]}.bmp": 10 * i for i, name in enumerate(NAMES)}
    low = grey(tmp_path / "low", levels | {"z/of another.bmp": 255}, 4)
    data = opened(images, tmp_path, condition_on=low)
    images_, told = data.batch([2, 0])
    assert images_[:, 0, 0, 0].tolist() == [52, 50]
    assert told.picture[:, 0, 0, 0].tolist() == [20, 0]
    assert told.picture.shape == (2, 1, 4, 4)
    for part in split_validation(data, 1):
        shown, given = part.batch(range(len(part)))
        assert (10 * (shown[:, 0, 0, 0].int() - 50)).tolist() == given.picture[:, 0, 0, 0].tolist()
    (x_0, given), *_ = ModelBatches(data, conditioned=False)
    assert x_0.shape == (4, 1, 8, 8)
    assert given.dropped.tolist() == [True] * 4


def test_images_that_cannot_be_read_leave_their_conditions_out(
    images: Path, tmp_path: Path
) -> None:
    (images / NAMES[1]).write_bytes(b"no image")
    rows = ["file_name,x", *(f"{name},{i}" for i, name in enumerate(NAMES))]
    (images / "metadata.csv").write_text("\n".join(rows))
    low = grey(tmp_path / "low", {name: i for i, name in enumerate(NAMES)}, 8)
    data = opened(images, tmp_path, condition_on=low, condition_vector=("x",))
    told = data.batch([0, 1, 2]).labels
    assert told.vector[:, 0].tolist() == [0, 2, 3]
    assert told.picture[:, 0, 0, 0].tolist() == [0, 2, 3]


def test_pictures_of_another_array_go_by_number(tmp_path: Path) -> None:
    low = np.arange(16, dtype=np.uint8).reshape(4, 2, 2)
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8), np.uint8), low=low)
    np.save(tmp_path / "low.npy", low)
    for on in ("low", str(tmp_path / "low.npy")):
        data = opened(tmp_path / "x.npz", tmp_path, condition_on=on)
        assert torch.equal(data.batch([3, 1]).labels.picture, torch.from_numpy(low[[3, 1], None]))


def test_what_is_missing_or_of_another_shape_is_named_at_once(
    images: Path, tmp_path: Path
) -> None:
    low = grey(tmp_path / "low", {NAMES[0]: 1, NAMES[2]: 2}, 4)
    grey(low, {NAMES[3]: 3}, 2)
    said = (
        r"lacks 1 of 4 images, as a/2.png; it must hold images of one size, 4×4, and c.png is 2×2"
    )
    with pytest.raises(ValueError, match=said):
        opened(images, tmp_path, condition_on=low)
    grey(low, {NAMES[1]: 3}, 4)
    with pytest.raises(ValueError, match=r"of one size, 4×4, and c.png is 2×2$"):
        opened(images, tmp_path, condition_on=low)
    grey(low, dict.fromkeys(NAMES, 3), 3)
    with pytest.raises(ValueError, match="has images of 3×3, and they must be as large as the im"):
        opened(images, tmp_path, condition_on=low)


def test_conditions_that_would_not_fit_are_refused(images: Path, tmp_path: Path) -> None:
    low = grey(tmp_path / "low", dict.fromkeys(NAMES, 1), 8)
    grey(low, {"a/1.bmp": 1}, 8)
    with pytest.raises(ValueError, match=r"two images of one name: a/1.bmp, a/1.png"):
        opened(images, tmp_path, condition_on=low)
    with pytest.raises(ValueError, match=r"lies in .*, where its images would be images to learn"):
        opened(images, tmp_path, condition_on=images / "a")
    with pytest.raises(ValueError, match="condition_on='nowhere' is no folder and no file"):
        opened(images, tmp_path, condition_on="nowhere")
    np.save(tmp_path / "three.npy", np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="as many images as there are, 4, got 3"):
        opened(images, tmp_path, condition_on=tmp_path / "three.npy")
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(images / NAMES[0])
    (low / "a/1.bmp").unlink()
    with pytest.raises(ValueError, match="needs images that are neither cropped nor padded"):
        opened(images, tmp_path, condition_on=low)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("", "values of 'x' missing for 1 of 4 images, as a/2.png"),
        ("nan", "metadata.csv has no value in row 2, a/2.png: its 'x' is 'nan'$"),
        ("inf", "not finite for 1 of 4 images"),
        ("red", "condition_vector='x' must hold numbers: could not convert string to float"),
    ],
)
def test_cells_that_are_no_numbers_are_named(
    images: Path, tmp_path: Path, cell: str, said: str
) -> None:
    cells = ["1", cell, "3", "4"]
    rows = ["file_name,x", *(f"{name},{c}" for name, c in zip(NAMES, cells, strict=True))]
    (images / "metadata.csv").write_text("\n".join(rows))
    with pytest.raises(ValueError, match=said):
        opened(images, tmp_path, condition_vector=("x",))
    with pytest.raises(ValueError, match=r"condition_vector='y' must be one of \['x'\]"):
        opened(images, tmp_path, condition_vector=("y",))


def test_columns_that_are_not_there_or_do_not_vary(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"condition_vector='x' has no meaning for .*which holds"):
        opened(images, tmp_path, condition_vector=("x",))
    array = np.zeros((4, 8, 8), np.uint8)
    with pytest.raises(ValueError, match="condition_vector='x' has no meaning for images without"):
        opened(array, tmp_path, condition_vector=("x",))
    np.savez(tmp_path / "x.npz", images=array, x=np.ones(4))
    data = opened(tmp_path / "x.npz", tmp_path, condition_vector=("x",))
    with pytest.raises(ValueError, match="condition_vector='x' must vary, got 1 for every image"):
        conditioning_of(data.given, "bicubic", trains_null=True)
    with pytest.raises(ValueError, match=r"must be one of \['images', 'x'\]"):
        opened(tmp_path / "x.npz", tmp_path, condition_vector=("y",))


def test_images_without_the_conditions_of_a_model_are_refused(tmp_path: Path) -> None:
    array = np.zeros((4, 8, 8), np.uint8)
    np.savez(tmp_path / "x.npz", images=array, v=np.arange(4), low=array[:, :4, :4])
    both = {"condition_vector": ("v",), "condition_on": "low"}
    data = opened(tmp_path / "x.npz", tmp_path, **both)
    wanted = conditioning_of(data.given, "nearest", trains_null=True)
    assert with_conditioning(data, wanted, "data='x'").given.columns == ("v",)
    without = opened(tmp_path / "x.npz", tmp_path)
    with pytest.raises(ValueError, match="data='x': condition_vector must name 1 columns"):
        with_conditioning(without, wanted, "data='x'")
    numbers = opened(tmp_path / "x.npz", tmp_path, condition_vector=("v",))
    with pytest.raises(
        ValueError, match=r"condition_on must be given, and is none; .* images 4×4"
    ):
        with_conditioning(numbers, wanted, "data='x'")


def test_numbers_keep_what_tells_them_apart_far_from_zero(tmp_path: Path) -> None:
    """3,600 seconds of one hour are as many places of the range, to float32's precision there."""
    seconds = 1_764_000_000 + np.arange(3600)
    images = np.zeros((3600, 2, 2), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, s=seconds, big=np.linspace(0, 1e39, 3600))
    data = open_images(
        tmp_path / "x.npz", resolution=2, progress=False, condition_vector=("s", "big")
    )
    wanted = conditioning_of(data.given, "bicubic", trains_null=True)
    assert (wanted.low, wanted.high) == ((seconds[0], 0.0), (seconds[-1], 1e39))
    u = wanted.scaled(data.batch(range(3600)).labels.vector)
    assert u.dtype == torch.float32
    exact = torch.arange(3600).double()[:, None].expand(3600, 2) / 3599
    assert (u - exact).abs().max() < 1e-6
    embeddings = wanted.encoded(data.batch(range(3600)).labels.vector, 32)
    assert len(embeddings.unique(dim=0)) == 3600
    values = 1.7e308 * np.linspace(-1, 1, 3600)
    np.savez(tmp_path / "x.npz", images=images, s=values)
    far = open_images(tmp_path / "x.npz", resolution=2, progress=False, condition_vector=("s",))
    with pytest.raises(
        ValueError, match=r"'s' must have a range below 1.8e308, got -1.7e\+308 to"
    ):
        conditioning_of(far.given, "bicubic", trains_null=True)


def test_two_images_do_not_share_one_condition(images: Path, tmp_path: Path) -> None:
    low = grey(tmp_path / "low", dict.fromkeys(NAMES, 1), 4)
    grey(images, {"a/1.bmp": 9}, 8)
    said = "condition_on has one image for two of one name: a/1.bmp, a/1.png"
    with pytest.raises(ValueError, match=said):
        opened(images, tmp_path, condition_on=low)


def test_pictures_are_turned_as_their_files_say(tmp_path: Path) -> None:
    """Half of them lie on their side; all are 4 high and 2 wide when they are turned."""
    rows = np.repeat(np.arange(4, dtype=np.uint8)[:, None] * 60, 2, 1)
    (tmp_path / "low").mkdir()
    for i, turn in enumerate((1, 6, 8, 1)):
        image = Image.fromarray(np.rot90(rows, {1: 0, 6: 1, 8: -1}[turn]).copy())
        exif = Image.Exif()
        exif[0x0112] = turn
        image.save(tmp_path / f"low/{i}.png", exif=exif)
    grey(tmp_path / "images", {f"{i}.png": i for i in range(4)}, 8)
    data = opened(tmp_path / "images", tmp_path, condition_on=tmp_path / "low")
    told = data.batch(range(4)).labels.picture
    assert told.shape == (4, 1, 4, 2)
    assert (told == torch.from_numpy(rows)).all()
    exif[0x0112] = 6
    Image.fromarray(rows).save(tmp_path / "low/2.png", exif=exif)
    with pytest.raises(ValueError, match=r"must hold images of one size, 4×2, and 2.png is 2×4$"):
        opened(tmp_path / "images", tmp_path, condition_on=tmp_path / "low")


def test_a_name_of_a_column_and_of_a_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for one that a model remembers, which is a column's."""
    array = np.zeros((4, 8, 8), np.uint8)
    np.savez(tmp_path / "x.npz", images=array, low=array)
    monkeypatch.chdir(tmp_path)
    assert (opened("x.npz", tmp_path, condition_on="low").batch([0]).labels.picture == 0).all()
    grey(tmp_path / "low", {f"{i}.png": 7 for i in range(4)}, 8)
    with pytest.raises(ValueError, match=r"condition_on='low' is a column .* \./low is the path"):
        opened("x.npz", tmp_path, condition_on="low")
    for path in ("./low", Path("low")):
        assert (opened("x.npz", tmp_path, condition_on=path).batch([0]).labels.picture == 7).all()
    remembered = opened("x.npz", tmp_path, condition_on=RememberedColumn("low"))
    assert (remembered.batch([0]).labels.picture == 0).all()


def test_pictures_have_the_channels_of_the_model(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grey files are colours too, as for images, wherever those of training had colours."""
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))
    low = grey(tmp_path / "low", {name: 10 * i for i, name in enumerate(NAMES)}, 4)
    unet = make_tiny_unet(channels=4, out_channels=1)
    conditioning = Conditioning(channels=3, sides=(4, 4))
    set_facts(unet, ModelFacts(conditioning=conditioning.to_dict()))
    data = open_model_images(images, unet, reading=ReadingOptions(condition_on=str(low)))
    told = data.batch(range(4)).labels.picture
    assert told.shape == (4, 3, 4, 4)
    assert told.amin((2, 3)).tolist() == told.amax((2, 3)).tolist()
    assert told[:, :, 0, 0].tolist() == [[10 * i] * 3 for i in range(4)]
