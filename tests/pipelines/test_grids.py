"""Formats that cannot hold a picture are refused before it is drawn; others replace it whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from diffusers import UNet2DModel
from helpers.pipelines import options
from PIL import Image

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.cli.sample import PICTURE_SUFFIXES
from ddpm_pipeline.pipelines.config import SampleConfig, SamplingOptions
from ddpm_pipeline.pipelines.grids import check_format, draw_grid
from ddpm_pipeline.pipelines.sampling import load_image_sampler, sample_images


@pytest.fixture
def saved(tiny_unet: Callable[..., UNet2DModel], tmp_path: Path) -> Callable[..., str]:
    def save(channels: int, **config: object) -> str:
        path = tmp_path / f"model{channels}"
        DDPMPipeline(tiny_unet(channels, **config), DDPMScheduler(10)).save_pretrained(path)
        return str(path)

    return save


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES.split())
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_is_not_refused_is_read_back(tmp_path: Path, suffix: str, channels: int) -> None:
    path = tmp_path / f"a{suffix}"
    images = np.random.default_rng(0).integers(100, 156, (3, 6, 6, channels), dtype=np.uint8)

    class Sampler:
        image_shape = (6, 6, channels)

        def __call__(self, indices: range) -> np.ndarray:
            return images[list(indices)]

    try:
        draw_grid(Sampler(), 3, path)
    except ValueError as refused:
        assert "; a .png file holds" in str(refused) or "; use .png" in str(refused)  # noqa: PT017
        assert list(tmp_path.iterdir()) == []
        return
    try:
        with Image.open(path) as picture:
            found = np.asarray(picture.convert(["L", "LA", "RGB", "RGBA"][channels - 1]))
    except OSError:
        assert suffix in {".eps", ".pdf", ".ps"}
        return
    found = found.reshape(15, 15, channels).astype(int)
    assert abs(found[1:7, 1:7].mean() - images[0].mean()) < 8


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("a.jpg", (64, 8, 8, 4), "cannot hold a picture of 4 channels: cannot write mode RGBA"),
        ("a.ico", (400, 16, 16, 3), "it would be another of 256 x 256; use .png"),
        ("a.ico", (90, 1, 8, 3), "it would be another of .* x .*; use .png"),
        ("a.gif", (1, 8, 8, 4), "it would lose some of them; use .png"),
        ("a.h5", (1, 8, 8, 3), "save handler not installed"),
        ("a.webp", (40000, 200, 1, 1), "cannot hold a picture of 1 channels"),
    ],
)
def test_formats_say_what_they_lack(
    name: str, shape: tuple[int, int, int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_format(Path(name), shape)


def test_nothing_is_drawn_for_a_format_that_cannot_hold_it(
    saved: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = load_image_sampler(SamplingOptions(**options(saved(4))))
    good = tmp_path / "good.jpg"
    Image.new("RGB", (8, 8), "red").save(good)
    before, calls = good.read_bytes(), []
    sampler.pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match="cannot write mode RGBA as JPEG"):
        draw_grid(sampler, 4, good)
    assert calls == []
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            draw_grid(sampler, 4, tmp_path / "good.png")
    assert good.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good.jpg", "model4"]


@pytest.mark.parametrize("form", ["png", "webdataset"])
def test_files_of_five_channels_are_refused_before_drawing(
    saved: Callable[..., str], tmp_path: Path, form: str
) -> None:
    config = options(saved(5), num_images=2, output=str(tmp_path / "out"), format=form)
    with pytest.raises(ValueError, match=f"format must be npz for images of 5.*got '{form}'"):
        sample_images(SampleConfig(**config))
    assert not (tmp_path / "out").exists()
    path = sample_images(
        SampleConfig(**{**config, "output": str(tmp_path / "out.npz"), "format": None})
    )
    assert np.load(path)["arr_0"].shape == (2, 8, 8, 5)


def test_a_model_without_a_size_is_refused_when_it_is_loaded(saved: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match=r"no sample_size.*register_to_config\(sample_size"):
        load_image_sampler(SamplingOptions(**options(saved(1, sample_size=None))))
