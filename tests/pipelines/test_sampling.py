"""Images at scale: the same bytes however they are drawn, through kills and across processes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from helpers.device_counts import DEVICE
from helpers.pipelines import images_of, options
from helpers.processes import exit_codes, fork, fork_ranks

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.common.distributed import process_state
from ddpm_pipeline.networks import ModelFacts, set_facts
from ddpm_pipeline.pipelines.config import SampleConfig, SamplingOptions
from ddpm_pipeline.pipelines.sampling import ImageSampler, load_image_sampler, sample_images

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel


# Drawing.

drawn = ImageSampler.__call__


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "as_saved"])
def test_an_image_depends_on_seed_and_number_alone(model: str, scheduler: str) -> None:
    sampler = load_image_sampler(SamplingOptions(**options(model, scheduler=scheduler)))
    together = sampler(range(7))
    assert together.shape == (7, 8, 8, 1)
    assert together.dtype == np.uint8
    for i in (5, 0, 3):
        assert np.array_equal(sampler([i])[0], together[i])
    assert len({image.tobytes() for image in together}) == 7
    other = load_image_sampler(SamplingOptions(**options(model, scheduler=scheduler, seed=1)))
    assert not np.array_equal(other([0])[0], together[0])


def test_every_model_call_has_the_same_rows(model: str) -> None:
    sampler, rows = load_image_sampler(SamplingOptions(**options(model))), set()
    sampler.pipe.unet.register_forward_pre_hook(lambda _, args: rows.add(len(args[0])))
    sampler(range(7))
    sampler([3])
    assert rows == {4}


def test_the_rows_of_a_call_are_a_cpus_or_follow_from_the_set_on_a_gpu(model: str) -> None:
    """A million elements of 8 x 8 pixels are 16,384 images."""
    sampler = load_image_sampler(SamplingOptions(**options(model, batch_size=None)))
    assert {sampler.sized(count).options.batch_size for count in (1, 20, 10**6)} == {16}
    given = load_image_sampler(SamplingOptions(**options(model)))
    assert given.sized(10**6) is given
    sampler.pipe.unet.to(DEVICE)
    rows = {count: sampler.sized(count).options.batch_size for count in (1, 16, 17, 10**6)}
    assert rows == {1: 16, 16: 16, 17: 32, 10**6: 16_384}


def test_shards_that_one_call_draws_are_those_of_single_calls(model: str, tmp_path: Path) -> None:
    calls = {}
    for rows, shard_size in ((16, 3), (16, 16)):
        folder = tmp_path / str(shard_size)
        config = options(model, batch_size=rows, num_images=17, shard_size=shard_size)
        with patch.object(ImageSampler, "__call__", autospec=True, side_effect=drawn) as drawing:
            sample_images(SampleConfig(**config, output=str(folder)))
        calls[shard_size] = [len(call.args[1]) for call in drawing.call_args_list]
    assert calls == {3: [15, 2], 16: [16, 1]}
    for i in range(17):
        name = f"{i:06d}.png"
        assert (tmp_path / "3" / name).read_bytes() == (tmp_path / "16" / name).read_bytes()


def test_another_batch_size_changes_images_by_rounding_alone(model: str) -> None:
    few = load_image_sampler(SamplingOptions(**options(model)))(range(20)).astype(int)
    many = load_image_sampler(SamplingOptions(**options(model, batch_size=20)))(range(20)).astype(
        int
    )
    assert np.abs(few - many).max() <= 1
    assert (few != many).mean() < 0.01


def test_the_sampler_is_the_pipeline_with_its_scheduler(model: str) -> None:
    from diffusers import DDIMScheduler

    sampler = load_image_sampler(SamplingOptions(**options(model, eta=0.5)))
    assert type(sampler.pipe.scheduler) is DDIMScheduler
    noisy = sampler(range(2))
    assert not np.array_equal(
        load_image_sampler(SamplingOptions(**options(model)))(range(2)), noisy
    )
    described = sampler.describe()
    assert described["scheduler"] == "DDIMScheduler"
    assert (described["eta"], described["num_inference_steps"]) == (0.5, 2)
    assert str(Path(model).parent) not in json.dumps(described)


def test_classes_are_taken_in_turn(tiny_unet: Callable[..., UNet2DModel], tmp_path: Path) -> None:
    unet = tiny_unet(num_class_embeds=3)
    DDPMPipeline(unet, DDPMScheduler(100)).save_pretrained(tmp_path / "model")
    config = options(str(tmp_path / "model"), scheduler="ddpm", class_labels=(0, 2))
    sampler = load_image_sampler(SamplingOptions(**config))
    assert sampler.labels(range(3, 6)) == [2, 0, 2]
    only = load_image_sampler(SamplingOptions(**{**config, "class_labels": (2,)}))
    assert np.array_equal(sampler([1, 3]), only([1, 3]))
    assert not np.array_equal(sampler([0]), only([0]))


def pets(tiny_unet: Callable[..., UNet2DModel], folder: Path) -> str:
    """Save a model of two classes, and of one that it never saw."""
    unet = tiny_unet(num_class_embeds=4)
    set_facts(unet, ModelFacts(class_names=("cat", "dog", "7"), class_counts=(3, 0, 2)))
    DDPMPipeline(unet, DDPMScheduler(100)).save_pretrained(folder / "pets")
    return str(folder / "pets")


@pytest.mark.parametrize("labels", [("7", "cat"), ("7", 0), (2, 0), ("2", "0"), ("7", "0")])
def test_classes_have_names_or_numbers(
    tiny_unet: Callable[..., UNet2DModel], tmp_path: Path, labels: tuple
) -> None:
    """The images and what is written of them are the same whatever the classes are called."""
    model = pets(tiny_unet, tmp_path)
    named = load_image_sampler(SamplingOptions(**options(model, class_labels=labels)))
    assert named.labels(range(3)) == [2, 0, 2]
    by_number = load_image_sampler(SamplingOptions(**options(model, class_labels=(2, 0))))
    assert named.describe() == by_number.describe()
    assert named.describe()["class_labels"] == [2, 0]
    assert np.array_equal(named([0, 1]), by_number([0, 1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_labels": ("cat", "fox")}, "class_labels must be among cat, dog, 7, got 'fox'"),
        ({"class_labels": "fox"}, "class_labels must be among cat, dog, 7, got 'fox'"),
        ({"class_labels": ("dog",)}, "trained classes, cat, 7; .* no images of class 'dog'"),
    ],
)
def test_classes_that_cannot_be_drawn_are_refused_before_anything_is_written(
    tiny_unet: Callable[..., UNet2DModel], tmp_path: Path, changes: dict, message: str
) -> None:
    config = options(pets(tiny_unet, tmp_path), output=str(tmp_path / "out"), **changes)
    with pytest.raises(ValueError, match=message):
        sample_images(SampleConfig(**config))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_images": 0}, "num_images must be at least 1, got 0"),
        ({"shard_size": 0}, "shard_size must be at least 1, got 0"),
        ({"class_labels": ()}, "class_labels must hold at least one class"),
        ({"output": "a.npz", "format": "png"}, r"output must end in \.npz for format npz"),
        ({"output": "a", "format": "npz"}, r"output must end in \.npz for format npz"),
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SampleConfig(model="model", **changes)


@pytest.mark.parametrize(
    ("steps", "allowed"), [(0, "at least 1"), (101, "an integer from 1 to 100")]
)
def test_more_steps_than_the_model_has_are_refused(model: str, steps: int, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"num_inference_steps must be {allowed}.*, got {steps}"):
        load_image_sampler(SamplingOptions(model=model, num_inference_steps=steps))


# Writing.


def test_a_killed_run_goes_on_without_redoing_what_is_finished(model: str, tmp_path: Path) -> None:
    config = options(model, num_images=40, shard_size=4, num_inference_steps=8)
    partial, whole = tmp_path / "partial", tmp_path / "whole"
    pid = fork(lambda: sample_images(SampleConfig(**config, output=str(partial))))
    deadline = time.monotonic() + 60
    while len(list(partial.glob("*.png"))) < 8:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    assert exit_codes([pid]) == [-signal.SIGKILL]
    written = {path: path.stat().st_mtime_ns for path in sorted(partial.glob("*.png"))}
    assert 8 <= len(written) < 40
    finished = list(written)[: len(written) // 4 * 4]
    sample_images(SampleConfig(**config, output=str(partial)))
    assert all(path.stat().st_mtime_ns == written[path] for path in finished)
    sample_images(SampleConfig(**config, output=str(whole)))
    assert np.array_equal(images_of(partial), images_of(whole))
    assert len(images_of(whole)) == 40
    assert [p.name for p in partial.iterdir() if p.name.startswith(".")] == []


def test_a_killed_run_into_one_file_goes_on(model: str, tmp_path: Path) -> None:
    config = options(model, num_images=10, shard_size=4)
    whole = sample_images(SampleConfig(**config, output=str(tmp_path / "whole.npz")))
    parts = tmp_path / "a.npz.parts"
    sample_images(SampleConfig(**config, output=str(tmp_path / "a.npz")))
    expected = (tmp_path / "a.npz").read_bytes()
    with np.load(whole) as file:
        images = file["arr_0"]
    with ZipFile(whole) as file:  # numpy 2.3 itself fails at what is no array
        manifest = file.read("sampling.json")
    (tmp_path / "a.npz").unlink()
    parts.mkdir()
    (parts / "sampling.json").write_bytes(manifest)
    np.save(parts / "000004.npy", 255 - images[4:8])  # to see that it is not drawn again
    sample_images(SampleConfig(**config, output=str(tmp_path / "a.npz")))
    assert not parts.exists()
    with np.load(tmp_path / "a.npz") as file:
        assert np.array_equal(file["arr_0"][4:8], 255 - images[4:8])
        assert np.array_equal(file["arr_0"][:4], images[:4])
    assert len(expected) == (tmp_path / "a.npz").stat().st_size


def test_two_processes_draw_the_same_set_as_one(model: str, tmp_path: Path) -> None:
    config = options(model, num_images=22, shard_size=4, output=str(tmp_path / "two"))

    def run() -> None:
        sample_images(SampleConfig(**config))
        assert process_state().num_processes == 2

    assert exit_codes(fork_ranks(run, 2)) == [0, 0]
    sample_images(SampleConfig(**{**config, "output": str(tmp_path / "one")}))
    files = [sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]
    assert len(files[0]) == 23
    for name in files[0]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("name", ["png", "a.npz"])
def test_output_of_other_options_is_refused_and_named(
    model: str, tmp_path: Path, name: str
) -> None:
    config = options(model, num_images=3, output=str(tmp_path / name))
    sample_images(SampleConfig(**config))
    sample_images(SampleConfig(**config))
    with pytest.raises(ValueError, match=r"holds images made with other options: seed 0, now 5"):
        sample_images(SampleConfig(**{**config, "seed": 5}))
    torch.manual_seed(0)
    pipe = DDPMPipeline.from_pretrained(model)
    with torch.no_grad():
        pipe.unet.conv_out.bias += 1
    pipe.save_pretrained(model)
    with pytest.raises(ValueError, match=r"other options: weights '\w+', now"):
        sample_images(SampleConfig(**config))


def test_one_bar_counts_all_images(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample_images(SampleConfig(**options(model, num_images=6, output=str(tmp_path / "png"))))
    assert "6/6" in capsys.readouterr().err
