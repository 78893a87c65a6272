"""Guidance by another model, against one network that combines the two itself."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from helpers.coloured_noise import SHAPE, ColouredNoise, coloured_scheduler
from helpers.training_runs import tiny_config
from helpers.unets import make_tiny_unet
from PIL import Image
from torch import Tensor, nn

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.cli import main
from ddpm_pipeline.common import stream_generator, weights_hash
from ddpm_pipeline.networks import ModelFacts, set_facts
from ddpm_pipeline.training import open_checkpoint, train

EPSILON = {"prediction_type": "epsilon", "beta_schedule": "linear"}
V_ZERO_SNR = {
    "prediction_type": "v_prediction",
    "beta_schedule": "squaredcos_cap_v2",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


def pipeline(unet: nn.Module, **scheduler: object) -> DDPMPipeline:
    pipe = DDPMPipeline(unet, DDPMScheduler(**{**EPSILON, **scheduler}))
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Combined(nn.Module):
    """g + w (f - g) where guided(t), else f: what guidance is by its definition."""

    def __init__(self, f: nn.Module, g: nn.Module, w: float, guided: object = None) -> None:
        super().__init__()
        self.f, self.g, self.w, self.guided, self.config = f, g, w, guided, f.config

    def forward(
        self, x: Tensor, t: Tensor, class_labels: Tensor | None = None
    ) -> diffusers.models.unets.unet_2d.UNet2DOutput:
        f = self.f(x, t, class_labels=class_labels).sample
        if self.guided is None or self.guided(float(t)):
            has_classes = self.g.config.num_class_embeds is not None
            g = self.g(x, t, class_labels=class_labels if has_classes else None).sample
            half = x.shape[1]
            g = g[:, :half]
            f = torch.cat([g + self.w * (f[:, :half] - g), f[:, half:]], dim=1)
        return diffusers.models.unets.unet_2d.UNet2DOutput(sample=f)


def calls(unet: nn.Module) -> list[int]:
    """Note the rows of each call of a network."""
    rows: list[int] = []
    unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    return rows


def labels_of(unet: nn.Module) -> list[list[int]]:
    """Note the labels of each call of a network."""
    seen: list[list[int]] = []
    unet.register_forward_pre_hook(
        lambda *call: seen.append(call[-1]["class_labels"].tolist()), with_kwargs=True
    )
    return seen


def draw(pipe: DDPMPipeline, **options: object) -> np.ndarray:
    generator = [torch.Generator().manual_seed(seed) for seed in range(3)]
    defaults = {"batch_size": 3, "generator": generator, "num_inference_steps": 5}
    return pipe(**{**defaults, "output_type": "np", "max_batch_size": 4, **options}).images


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "multistep"])
@pytest.mark.parametrize("labels", [None, [0, 2, 1]])
def test_a_guided_image_is_that_of_the_combined_network(
    solver: str, labels: list[int] | None
) -> None:
    classes = None if labels is None else 4
    f, g = (make_tiny_unet(seed=seed, num_class_embeds=classes) for seed in (0, 1))
    expected = draw(pipeline(Combined(f, g, 2.5)), solver=solver, class_labels=labels)
    rows, pipe = calls(g), pipeline(f)
    for model in (g, pipeline(g)):
        found = draw(
            pipe, solver=solver, class_labels=labels, guidance_scale=2.5, guidance_model=model
        )
        assert np.array_equal(found, expected)
    assert rows == 10 * [4]  # filled up, like all calls for a list of generators
    steps = pipe.progressive(
        3,
        [torch.Generator().manual_seed(seed) for seed in range(3)],
        5,
        "np",
        solver=solver,
        class_labels=labels,
        guidance_scale=2.5,
        guidance_model=g,
    )
    *_, (_, last) = steps
    np.testing.assert_allclose(last, expected, atol=1e-5)


class Filter(nn.Module):
    """The best network for coloured noise of some steepness."""

    def __init__(self, data: ColouredNoise) -> None:
        super().__init__()
        self.data, self.config = data, make_tiny_unet(3, sample_size=SHAPE[1:]).config

    def forward(
        self, x: Tensor, t: Tensor, class_labels: None = None
    ) -> diffusers.models.unets.unet_2d.UNet2DOutput:
        assert class_labels is None
        return diffusers.models.unets.unet_2d.UNet2DOutput(self.data(x, t.expand(len(x))))


@pytest.mark.parametrize("options", [{"solver": "spectral"}, {"solver": "ddpm"}])
def test_steps_by_frequency_take_what_is_guided(options: dict) -> None:
    """The semi-linear solver, and steps of DDPM with a variance for each frequency."""
    scheduler, data = coloured_scheduler()
    f, g = Filter(data), Filter(ColouredNoise(data.schedule, steepness=1.0))
    pipes = [DDPMPipeline(network, scheduler) for network in (f, Combined(f, g, 1.5))]
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
    assert scheduler.variance_type == "spectral"
    guided = draw(pipes[0], guidance_model=g, guidance_scale=1.5, **options)
    assert np.array_equal(guided, draw(pipes[1], **options))
    assert np.abs(guided - draw(pipes[0], **options)).max() > 0.01


def test_images_in_shares_have_their_own_labels() -> None:
    f, g = (make_tiny_unet(seed=seed, num_class_embeds=4) for seed in (0, 1))
    options = {"class_labels": [0, 2, 1], "max_batch_size": 2}
    expected = draw(pipeline(Combined(f, g, 0.5)), **options)
    found = draw(pipeline(f), guidance_scale=0.5, guidance_model=g, **options)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("halves", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_a_variance_half_is_the_models_own(halves: tuple[int, int]) -> None:
    f, g = (make_tiny_unet(out_channels=n, seed=i) for i, n in enumerate(halves))
    options = {"variance_type": "learned_range" if halves[0] == 2 else "fixed_small"}
    expected = draw(pipeline(Combined(f, g, 3.0), **options))
    found = draw(pipeline(f, **options), guidance_scale=3.0, guidance_model=g)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "scheduler", [diffusers.EulerDiscreteScheduler, diffusers.HeunDiscreteScheduler]
)
def test_schedulers_of_stock_are_guided_too(scheduler: type) -> None:
    f, g = make_tiny_unet(seed=0), make_tiny_unet(seed=1)
    one, two = pipeline(Combined(f, g, 2.0)), pipeline(f)
    for pipe in (one, two):
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    found = draw(two, guidance_scale=2.0, guidance_model=g)
    np.testing.assert_allclose(found, draw(one), atol=1e-5)


# Intervals.


@pytest.mark.parametrize("by_model", [True, False])
def test_outside_the_interval_a_step_costs_one_call_and_is_not_guided(by_model: bool) -> None:
    f, g = (make_tiny_unet(seed=seed, num_class_embeds=4) for seed in (0, 1))
    pipe = pipeline(f)
    pipe.scheduler.set_timesteps(5)
    t = pipe.scheduler.timesteps.tolist()
    low, high = t[3], t[1]

    def null(x: Tensor, t: Tensor, class_labels: Tensor) -> object:
        return f(x, t, class_labels=torch.full_like(class_labels, 3))

    weak = g
    if not by_model:
        weak = nn.Identity()
        weak.config, weak.forward = f.config, null
    inside = Combined(f, weak, 2.0, lambda t: low <= t <= high)
    expected = draw(pipeline(inside), class_labels=1)
    rows = calls(f)
    found = draw(
        pipe,
        class_labels=1,
        guidance_scale=2.0,
        guidance_model=g if by_model else None,
        guidance_interval=(low, high),
        max_batch_size=4,
    )
    assert np.array_equal(found, expected)
    assert len(rows) == (5 if by_model else 5 + 3)


def test_guidance_that_does_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    f, g = make_tiny_unet(seed=0), make_tiny_unet(seed=1)
    plain, rows = draw(pipeline(f)), calls(g)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(draw(pipeline(f), guidance_model=g), plain)
        assert "guidance_model has no effect with guidance_scale=1" in caplog.text
        options = {"guidance_model": g, "guidance_scale": 2.0, "guidance_interval": (1, 2)}
        assert np.array_equal(draw(pipeline(f), **options), plain)
        assert "guidance_interval=(1, 2) holds none of the chain's timesteps" in caplog.text
    assert rows == []


# Other schedules and prediction types.


class Gaussian(nn.Module):
    """The perfect network for pixels of N(0.3, 0.5^2), at any t, of any schedule and type."""

    def __init__(self, scale: float, scheduler: DDPMScheduler) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.scale, self.type = scale, scheduler.config.prediction_type
        snr = scheduler.schedule.snr(torch.arange(len(scheduler.schedule)))
        self.log_snr = snr.log().clamp_min(-60).numpy()
        self.config = make_tiny_unet().config

    def forward(self, x: Tensor, t: Tensor, class_labels: None = None) -> object:
        assert class_labels is None
        log_snr = np.interp(float(t), np.arange(len(self.log_snr)), self.log_snr)
        signal, noise = (1 / (1 + np.exp(sign * log_snr)) for sign in (-1, 1))
        a, b = signal**0.5, noise**0.5
        x = x.double()
        x_0 = 0.3 + self.scale * a * 0.25 / (a * a * 0.25 + b * b) * (x - a * 0.3)
        eps = (x - a * x_0) / b
        found = {"sample": x_0, "epsilon": eps, "v_prediction": a * eps - b * x_0}[self.type]
        return diffusers.models.unets.unet_2d.UNet2DOutput(sample=found.float())


LAPLACE = {"beta_schedule": "laplace", "prediction_type": "sample"}
SHORT = {**V_ZERO_SNR, "num_train_timesteps": 400}


@pytest.mark.parametrize(
    ("own", "its", "interval"),
    [
        (EPSILON, {**EPSILON, "prediction_type": "sample"}, None),
        (EPSILON, {**EPSILON, "prediction_type": "v_prediction"}, None),
        ({**EPSILON, "prediction_type": "v_prediction"}, EPSILON, None),
        (V_ZERO_SNR, {**V_ZERO_SNR, "prediction_type": "sample"}, None),
        (V_ZERO_SNR, SHORT, None),
        (SHORT, V_ZERO_SNR, None),
        (EPSILON, V_ZERO_SNR, None),
        (V_ZERO_SNR, {**EPSILON, "prediction_type": "v_prediction"}, (0, 900)),
        (V_ZERO_SNR, EPSILON, (0, 900)),
        ({**EPSILON, "prediction_type": "sample"}, LAPLACE, (100, 600)),
    ],
)
def test_a_guide_of_another_schedule_or_type_guides_like_its_own_twin(
    own: dict, its: dict, interval: tuple[int, int] | None
) -> None:
    """Perfect networks give the same x_0 whatever they predict and how time is told."""
    pipe = pipeline(make_tiny_unet(), **own)
    pipe.unet = Gaussian(1.0, pipe.scheduler)
    twin, guide = (pipeline(make_tiny_unet(), **options) for options in (own, its))
    for other in (twin, guide):
        other.unet = Gaussian(0.6, other.scheduler)
    options = {"guidance_scale": 1.8, "solver": "ddim", "guidance_interval": interval}
    options["num_inference_steps"] = 20
    expected = draw(pipe, guidance_model=twin, **options)
    assert np.abs(expected - draw(pipe, solver="ddim", num_inference_steps=20)).max() > 0.02
    found = draw(pipe, guidance_model=guide, **options)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_a_schedule_that_ends_at_little_signal_stands_for_none() -> None:
    pipe = pipeline(make_tiny_unet(), **V_ZERO_SNR)
    pipe.unet = Gaussian(1.0, pipe.scheduler)
    guide = pipeline(make_tiny_unet(), prediction_type="v_prediction")
    guide.unet = Gaussian(0.6, guide.scheduler)
    assert np.isfinite(draw(pipe, guidance_model=guide, guidance_scale=1.5)).all()


def test_a_schedule_that_ends_far_from_noise_is_refused() -> None:
    pipe, short = pipeline(make_tiny_unet()), pipeline(make_tiny_unet(), num_train_timesteps=100)
    message = r"guidance_model must know images as noisy as those of timestep 800, .* the nearest"
    with pytest.raises(ValueError, match=message):
        draw(pipe, guidance_model=short, guidance_scale=2.0)
    options = {"guidance_model": short, "guidance_scale": 2.0, "guidance_interval": (0, 300)}
    assert np.isfinite(draw(pipe, **options)).all()


# What is refused.


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        ({"sample_size": 16}, r"with sample_size \(8, 8\), got \(16, 16\)"),
        ({"channels": 3}, "with in_channels 1, got 3"),
        ({"out_channels": 3}, "have 1 or 2 output channels, got 3"),
        ({"num_class_embeds": 5}, "as many class embeddings as the model, 4, got 5"),
    ],
)
def test_a_guide_of_another_shape_is_refused_by_name(guide: dict, message: str) -> None:
    pipe = pipeline(make_tiny_unet(num_class_embeds=4))
    options = {"guidance_scale": 2.0, "class_labels": 1}
    with pytest.raises(ValueError, match=f"guidance_model must .*{message}"):
        draw(pipe, guidance_model=make_tiny_unet(**guide), **options)


def test_what_is_no_model_is_refused() -> None:
    pipe = pipeline(make_tiny_unet())
    with pytest.raises(
        TypeError, match="guidance_model must be a diffusers UNet2DModel, got a in"
    ):
        draw(pipe, guidance_model=3, guidance_scale=2.0)
    with pytest.raises(ValueError, match="guidance_model must be another network"):
        draw(pipe, guidance_model=pipe, guidance_scale=2.0)
    with pytest.raises(OSError, match="nowhere"):
        draw(pipe, guidance_model="./nowhere", guidance_scale=2.0)


def test_a_guide_on_another_device_is_refused_and_not_moved() -> None:
    guide = make_tiny_unet(seed=1).to("meta")
    with pytest.raises(ValueError, match="guidance_model must be on the device cpu, got meta"):
        draw(pipeline(make_tiny_unet()), guidance_model=guide, guidance_scale=2.0)
    assert guide.device.type == "meta"


@pytest.mark.parametrize("interval", [(5,), (9, 3), (-1, 5), (0, 1000), (0.5, 3), 5, (True, 5)])
def test_what_is_no_interval_is_refused(interval: object) -> None:
    pipe = pipeline(make_tiny_unet(num_class_embeds=4))
    message = "guidance_interval must be two timesteps, the lower first, from 0 to 999, got"
    with pytest.raises(ValueError, match=message):
        draw(pipe, class_labels=1, guidance_scale=2.0, guidance_interval=interval)


def test_classes_are_matched_by_name() -> None:
    f, g = (make_tiny_unet(seed=seed, num_class_embeds=count) for seed, count in ((0, 3), (1, 4)))
    set_facts(f, ModelFacts(class_names=("cat", "dog"), class_counts=(1, 1)))
    set_facts(g, ModelFacts(class_names=("ant", "dog", "cat"), class_counts=(1, 1, 0)))
    seen = labels_of(g)
    draw(pipeline(f), class_labels="dog", guidance_scale=2.0, guidance_model=g)
    assert seen == 5 * [[1, 1, 1, 1]]
    with pytest.raises(ValueError, match="held no images of class 'cat'"):
        draw(pipeline(f), class_labels="cat", guidance_scale=2.0, guidance_model=g)
    set_facts(g, ModelFacts(class_names=("ant", "dog", "cow"), class_counts=(1, 1, 1)))
    with pytest.raises(ValueError, match=r"guidance_model must know the model's classes, .* cat"):
        draw(pipeline(f), class_labels="dog", guidance_scale=2.0, guidance_model=g)


def test_a_guide_with_classes_guides_a_model_without_by_its_null_class() -> None:
    f, g = make_tiny_unet(seed=0), make_tiny_unet(seed=1, num_class_embeds=3)
    with pytest.raises(ValueError, match="has classes and no trained null class"):
        draw(pipeline(f), guidance_scale=2.0, guidance_model=g)
    names = {"class_names": ("cat", "dog"), "class_counts": (1, 1)}
    set_facts(g, ModelFacts(**names, trains_null_class=True))
    seen = labels_of(g)
    draw(pipeline(f), guidance_scale=2.0, guidance_model=g)
    assert seen == 5 * [[2, 2, 2, 2]]


def test_a_saved_model_guides(tmp_path: Path) -> None:
    f, g = make_tiny_unet(seed=0), make_tiny_unet(seed=1)
    pipeline(g).save_pretrained(tmp_path)
    options = {"guidance_scale": 2.0}
    expected = draw(pipeline(f), guidance_model=g, **options)
    assert np.array_equal(draw(pipeline(f), guidance_model=tmp_path, **options), expected)


# From the shell.


def test_a_checkpoint_guides_what_is_sampled_and_the_manifest_says_so(
    tmp_path: Path, random_last_layers: None, capsys: pytest.CaptureFixture
) -> None:
    config = tiny_config(tmp_path, max_train_steps=4, checkpointing_steps=2)
    train(config.replace(save_images_steps=0))
    early, samples = tmp_path / "run/checkpoints/step-0000002", tmp_path / "samples"
    words = ["sample", str(tmp_path / "run"), "--num_images", "3", "--num_inference_steps", "2"]
    guided = ["--guidance_model", str(early), "--guidance_scale", "3"]
    assert main([*words, *guided, "--output", str(samples)]) == 0
    found = json.loads((samples / "sampling.json").read_text())
    pipe, weak = DDPMPipeline.from_pretrained(tmp_path / "run"), open_checkpoint(early).pipeline
    assert found["guidance_model"] == weights_hash(weak.unet)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    expected = pipe(
        3,
        [stream_generator("samples", 0, i) for i in range(3)],
        2,
        "np",
        guidance_scale=3.0,
        guidance_model=weak,
    ).images
    drawn = [np.array(Image.open(samples / f"{i:06d}.png")) for i in range(3)]
    assert np.array_equal(drawn, (expected[..., 0] * 255).round().astype(np.uint8))
    for more, message in [
        (["--guidance_model", str(early)], "--guidance_model needs a --guidance_scale other"),
        ([*guided, "--guidance_interval", "9", "3"], "--guidance_interval must be two timesteps"),
        ([*guided, "--guidance_interval", "3", "20"], "--guidance_interval must be two timesteps"),
        (["--guidance_model", "no/such/model", *guided[2:]], "--guidance_model"),
    ]:
        capsys.readouterr()
        with contextlib.suppress(SystemExit):
            assert main([*words, *more, "--output", str(tmp_path / "no.png")]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert message in lines[-1]
    assert not (tmp_path / "no.png").exists()
