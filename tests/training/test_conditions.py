"""Runs on images with conditions, the models that come of them, and what stock makes of these."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.cards import REPO, run_code, snippets
from helpers.command_lines import error_of
from helpers.training_runs import TINY_UNET
from PIL import Image
from safetensors.torch import load_file

from ddpm_pipeline.cards.card import renew_card
from ddpm_pipeline.cli.commands import main
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.networks.denoiser import run_denoiser
from ddpm_pipeline.networks.model_facts import facts_of
from ddpm_pipeline.pipelines.pipeline import DDPMPipeline
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.data import open_training_data
from ddpm_pipeline.training.description import describe_data
from ddpm_pipeline.training.run import dry_run, train
from tests.training.test_shapes import tiny_config

VECTOR = {"condition_vector": ("x", "v")}
PICTURE = {"condition_on": "low"}
KINDS = {"vector": VECTOR, "picture": PICTURE, "both": VECTOR | PICTURE}

STOCK = """
import math, sys
sys.modules["ddpm_pipeline"] = None  # cannot be imported
import diffusers, numpy, torch
model, given, snippet, out = sys.argv[1:]
unet = diffusers.DiffusionPipeline.from_pretrained(model).unet.eval()
x_t, v, small = (torch.from_numpy(numpy.load(given)[name]) for name in ("x", "v", "y"))
t = torch.tensor([3, 900])
with torch.no_grad():
    exec(open(snippet).read())
numpy.save(out, output.numpy())
"""
DOCS = Path(__file__).parents[2] / "docs"
CALLS = {
    "vector": "unet(x_t, t, numbers(unet, v)).sample",
    "picture": "unet(torch.cat([x_t, picture(small, x_t)], 1), t).sample",
    "both": "unet(torch.cat([x_t, picture(small, x_t)], 1), t, numbers(unet, v)).sample",
}


def stock_snippet(kind: str) -> str:
    """Give what the page says, with the call of a kind of condition."""
    page = (DOCS / "train.md").read_text(encoding="utf-8")
    code = page.partition("## Conditions")[2].partition("```python\n")[2].partition("```")[0]
    functions, _, call = code.partition("output = ")
    assert call.strip() == CALLS["both"]
    return f"{functions}output = {CALLS[kind]}\n"


def write_data(folder: Path, count: int = 12) -> Path:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 8, 8), dtype=np.uint8)
    values = images.reshape(count, -1) / 255
    low = images.reshape(count, 4, 2, 4, 2).mean((2, 4)).astype(np.uint8)
    path = folder / "x.npz"
    np.savez(path, images=images, low=low, x=values.mean(1), v=values[:, :2])
    return path


def run_config(folder: Path, kind: str, **options: object) -> TrainingConfig:
    folder.mkdir(exist_ok=True)
    if not (folder / "x.npz").exists():
        write_data(folder)
    changes = {} if kind == "picture" else {"class_embed_type": "identity"}
    channels = 1 if kind == "vector" else 2
    given = {
        "train_data_dir": str(folder / "x.npz"),
        "resolution": 8,
        "model_config_name_or_path": str(tiny_config(folder, in_channels=channels, **changes)),
        "output_dir": str(folder / "model"),
        "cache_dir": str(folder / "cache"),
        "max_train_steps": 4,
        "train_batch_size": 4,
        "eval_batch_size": 4,
        "ddpm_num_inference_steps": 2,
        "condition_dropout": 0.3,
        "mixed_precision": "no",
        "num_threads": 1,
    }
    return TrainingConfig(**given | KINDS[kind] | options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model/unet/diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(kind: str, random_last_layers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(kind)
    held_out = {"validation_size": 4, "validate_bound_steps": 4, "validate_bound_images": 2}
    train(run_config(folder, kind, **held_out))
    return folder


def condition(folder: Path, kind: str, rows: list[int]) -> object:
    with np.load(folder / "x.npz") as archive:
        vector = np.column_stack([archive["x"], archive["v"]])[rows]
        pictures = archive["low"][rows][..., None]
    return {"vector": vector, "picture": pictures, "both": {"vector": vector, "image": pictures}}[
        kind
    ]


def test_stock_computes_the_same_by_what_the_page_says(
    folder: Path, kind: str, tmp_path: Path
) -> None:
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with np.load(folder / "x.npz") as archive:
        v = np.column_stack([archive["x"], archive["v"]])[:2]
        y = archive["low"][:2, None]
    np.savez(tmp_path / "given.npz", x=x.numpy(), v=v, y=y.astype(np.float32) / 255)
    (tmp_path / "snippet.py").write_text(stock_snippet(kind))
    names = ("given.npz", "snippet.py", "out.npy")
    command = [sys.executable, "-c", STOCK, folder / "model", *(tmp_path / n for n in names)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    data = open_images(folder / "x.npz", resolution=8, progress=False, **KINDS[kind])
    unet = DDPMPipeline.from_pretrained(folder / "model").unet.eval()
    with torch.no_grad():
        ours = run_denoiser(unet, x, torch.tensor([3, 900]), data.batch([0, 1]).labels)
    assert torch.allclose(ours, torch.from_numpy(np.load(tmp_path / "out.npy")), atol=1e-5)


def test_the_model_remembers_what_it_is_conditioned_on(folder: Path, kind: str) -> None:
    unet = DDPMPipeline.from_pretrained(folder / "model").unet
    wanted = facts_of(unet).conditioned_on
    assert wanted.trains_null
    assert wanted.columns == (() if kind == "picture" else ("x", "v[0]", "v[1]"))
    assert (wanted.channels, wanted.sides) == ((0, None) if kind == "vector" else (1, (4, 4)))
    assert unet.config.in_channels == 1 + wanted.channels
    assert str(folder) not in (folder / "model/unet/config.json").read_text()


def test_samples_follow_the_condition_of_their_row(folder: Path, kind: str) -> None:
    pipe = DDPMPipeline.from_pretrained(folder / "model")
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    how = {"num_inference_steps": 2, "eta": 0.0, "output_type": "pt"}

    def draw(rows: list[int], **options: object) -> torch.Tensor:
        return pipe(condition=condition(folder, kind, rows), **how | options).images

    both = draw([0, 1], noise=noise)
    assert torch.allclose(draw([0], noise=noise[:1]), both[:1], atol=1e-5)
    assert torch.allclose(draw([1], noise=noise)[1:], both[1:], atol=1e-5)  # one for all
    assert not torch.allclose(draw([1, 0], noise=noise), both)
    guided = draw([0, 1], noise=noise, guidance_scale=2.0)
    assert not torch.allclose(guided, both)
    assert torch.allclose(
        draw([0, 1], noise=noise, guidance_scale=2.0, max_batch_size=1), guided, atol=1e-5
    )
    assert len(draw([0, 1, 2])) == 3
    with pytest.raises(ValueError, match="condition must be given: the model is conditioned on"):
        pipe(**how)
    with pytest.raises(ValueError, match="one for each of 5 images, got 2"):
        pipe(batch_size=5, condition=condition(folder, kind, [0, 1]), **how)


def test_bound_with_the_condition_and_without(
    folder: Path, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", str(folder / "x.npz"), "--num_timestep_samples", "2"]
    options += ["--output_dir", str(tmp_path), "--cache_dir", str(tmp_path / "cache")]
    assert main(["bound", str(folder / "model"), *options]) == 0
    report = json.loads((tmp_path / "bound.json").read_text())
    found, error = report["without_condition"], report["without_condition_error"]
    assert f"without condition     {found:.4f} ± {error:.4f}" in capsys.readouterr().out
    assert found != report["bits_per_dim"]
    if kind != "vector":  # columns are remembered, and paths are not
        np.save(tmp_path / "low.npy", np.load(folder / "x.npz")["low"][:3])
        more = ["--condition_on", str(tmp_path / "low.npy")]
        assert main(["bound", str(folder / "model"), *options, *more]) == 2
        said = "error: --condition_on must hold as many images as there are, 12, got 3"
        assert said in capsys.readouterr().err


def test_a_run_goes_on_bit_for_bit(kind: str, random_last_layers: None, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = {"checkpointing_steps": 2, "random_flip": True}
    train(run_config(whole, kind, **options))
    train(run_config(cut, kind, **options), should_stop=lambda step: step == 2)
    result = train(run_config(cut, kind, **options))
    assert result.finished
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(cut)[name]), name


@pytest.mark.usefixtures("random_last_layers")
def test_images_that_are_open_already_are_trained_on_alike(tmp_path: Path) -> None:
    """Without their conditions too, by the same coins."""
    by_name, opened = tmp_path / "name", tmp_path / "open"
    options = {"max_train_steps": 2, "condition_dropout": 0.5}
    train(run_config(by_name, "both", **options))
    config = run_config(opened, "both", **options)
    data = open_images(opened / "x.npz", resolution=8, progress=False, **KINDS["both"])
    nameless = {"train_data_dir": None, "condition_on": None, "condition_vector": None}
    train(config.replace(**nameless), train_data=data)
    other = weights(opened)
    assert all(torch.equal(value, other[name]) for name, value in weights(by_name).items())


def test_other_conditions_are_another_run(tmp_path: Path) -> None:
    options = {"checkpointing_steps": 2}
    config = run_config(tmp_path, "vector", **options)
    train(config, should_stop=lambda step: step == 2)
    with np.load(tmp_path / "x.npz") as archive:
        content = dict(archive)
    np.savez(tmp_path / "x.npz", **content | {"x": content["x"] + 1})
    with pytest.raises(ValueError, match=r"another configuration .*train_data"):
        train(config)


def test_one_model_of_classes_and_pictures(random_last_layers: None, tmp_path: Path) -> None:
    """The null class is trained with images that are told no condition."""
    content = {"images": np.zeros((12, 8, 8), np.uint8), "labels": np.arange(12) % 3}
    content["images"] += np.arange(12, dtype=np.uint8)[:, None, None]
    np.savez(tmp_path / "x.npz", low=content["images"], **content)
    unet = tiny_config(tmp_path, "classes.json", in_channels=2, num_class_embeds=4)
    options = {
        "class_conditional": True,
        "model_config_name_or_path": str(unet),
        "label_dropout": 0.0,
    }
    config = run_config(tmp_path, "picture", **options, preview_guidance_scale=2.0)
    train(config)
    without = run_config(tmp_path, "picture", **options, condition_dropout=0.0)
    assert open_training_data(without).facts(without).trains_null_class is False
    pipe = DDPMPipeline.from_pretrained(tmp_path / "model")
    how = {"num_inference_steps": 2, "guidance_scale": 2.0, "condition": content["images"][:2]}
    assert len(pipe(class_labels=[0, 2], **how).images) == 2
    with pytest.raises(ValueError, match="class_labels must be given"):
        pipe(**how)


def test_samples_on_the_command_line(
    folder: Path, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = []
    if kind != "picture":
        given += ["--condition_numbers", "0.5", "0.25", "0.75"]
    if kind != "vector":
        with np.load(folder / "x.npz") as archive:
            for i, pixels in enumerate(archive["low"][:3]):
                (tmp_path / "low").mkdir(exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / f"low/{i}.png")
        given += ["--condition", str(tmp_path / "low")]
    options = ["sample", str(folder / "model"), "--num_inference_steps", "2", "--eta", "1"]
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    for path, more in ((one, []), (two, ["--guidance_scale", "2"])):
        assert main([*options, *given, *more, "--num_images", "5", "--output", str(path)]) == 0
        assert np.load(path)["arr_0"].shape == (5, 8, 8, 1)
    assert (np.load(one)["arr_0"] != np.load(two)["arr_0"]).any()
    capsys.readouterr()
    code, said = error_of(capsys, *options, "--output", str(tmp_path / "three.npz"))
    assert code == 2
    option = "--condition" if kind == "picture" else "--condition_numbers"
    if kind != "both":
        assert f"{option} must be given: the model is conditioned on" in said


def test_a_dry_run_counts_the_wider_network(tmp_path: Path) -> None:
    plain = run_config(tmp_path, "picture")
    numbers = dry_run(plain, measure=False)
    narrow = TINY_UNET["block_out_channels"][0] * 9
    without = plain.replace(
        condition_on=None, model_config_name_or_path=str(tiny_config(tmp_path, "plain.json"))
    )
    assert numbers.num_parameters - dry_run(without, measure=False).num_parameters == narrow


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"class_conditional": True}, "give either condition_vector or class_conditional"),
        ({"streaming": True}, "condition_vector does not work with streaming"),
        ({"condition_on": "low", "center_crop": False}, "condition_on needs center_crop"),
        ({"condition_dropout": 1.0}, "condition_dropout must be at least 0 and below 1"),
        ({"condition_vector": ("x", "x")}, "condition_vector must be one or several different"),
        ({"condition_upsampling": "lanczos"}, "condition_upsampling must be"),
    ],
)
def test_options_that_do_not_go_together(options: dict, said: str) -> None:
    given = {"train_data_dir": "x.npz", "max_train_steps": 1, "condition_vector": ("x",)}
    with pytest.raises(ValueError, match=said):
        TrainingConfig(**given | options)


def test_a_vector_needs_an_embedding_as_wide(tmp_path: Path) -> None:
    images, values = np.zeros((4, 8, 8), np.uint8), np.random.default_rng(0).random((4, 9))
    np.savez(tmp_path / "x.npz", images=images, v=values)
    config = run_config(tmp_path, "vector", condition_vector=("v",))
    with pytest.raises(ValueError, match=r"at most 8 numbers .* got 9"):
        train(config)


def test_the_code_on_the_card_runs(folder: Path, kind: str, tmp_path: Path) -> None:
    card = renew_card(folder / "model", repo_id=REPO)
    assert ("is told x (" in card) == (kind != "picture")
    assert ("is given an image of 4×4 and 1 channel" in card) == (kind != "vector")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "small.png")
    own, stock = snippets(card, folder / "model")
    run_code(own, tmp_path)
    run_code(stock, tmp_path, stock_only=True)


def test_a_line_says_what_the_model_is_told(folder: Path, kind: str) -> None:
    config = run_config(folder, kind)
    lines = describe_data(config, open_training_data(config)).splitlines()
    (said,) = [line for line in lines if line.startswith("conditions")]
    assert ("x 0." in said) == (kind != "picture")
    assert ("images 4×4, 1 channel" in said) == (kind != "vector")
