"""Each scheduler of diffusers samples the right distribution or is refused, with what works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from helpers.oracles import ExactDenoiser, gaussian
from helpers.pipelines import quiet
from helpers.schedulers import SCHEDULER_NAMES, WORKING, made
from safetensors.torch import load_file, save_file

from ddpm_pipeline import DDPMPipeline, DDPMScheduler, calibrate, variational_bound
from ddpm_pipeline.pipelines.denoising import denoise
from ddpm_pipeline.pipelines.fitting import (
    check_network,
    check_scheduler,
    check_whole,
    usable_scheduler,
)

MakeUNet = Callable[..., diffusers.UNet2DModel]
DATA = gaussian(0.3, 0.25)
# Consistency models, from which they are, are not what they are run on here.
NARROW = {"LCMScheduler", "TCDScheduler"}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
ZERO = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}


def drawn(scheduler: diffusers.SchedulerMixin, model: ExactDenoiser, K: int) -> torch.Tensor:
    """2000 values by the exact denoiser, whose outputs are off by up to 0.03 here and there."""
    T = len(model.betas)

    def network(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        nearest = min(max(round(float(t)), 0), T - 1)
        error = 0.03 * torch.cos(7 * x_t + 0.013 * float(t))
        return model(x_t, torch.full((len(x_t),), nearest)) + error

    generator = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(K)
    noise = torch.randn(2000, 1, 1, 1, generator=generator) * scheduler.init_noise_sigma
    *_, step = denoise(network, scheduler, noise, scheduler.timesteps, generator=generator)
    return step.image


def is_right(x: torch.Tensor) -> bool:
    """As far off at most as K = 20 steps of any order may be: DDPM's are too narrow by 0.07."""
    return bool(x.isfinite().all() and abs(x.mean() - 0.3) < 0.05 and 0.12 < x.std() < 0.31)


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_every_scheduler_draws_finite_images_or_is_refused(tiny_unet: MakeUNet, name: str) -> None:
    try:
        scheduler = made(name)
    except ImportError as missing:
        pytest.skip(str(missing).strip().partition("\n")[0] or f"{name} is not installed")
    if name in WORKING or name == "DDPMScheduler":
        pipe = quiet(DDPMPipeline(tiny_unet(), scheduler))
        assert pipe(1, None, 5, "pt").images.isfinite().all()
        return
    with pytest.raises(ValueError, match=f"scheduler {name} cannot draw images here: .*; ") as e:
        DDPMPipeline(tiny_unet(), scheduler)
    assert "; use " in str(e.value) or "; pass " in str(e.value)
    assert "\n" not in str(e.value)
    pipe = DDPMPipeline(tiny_unet(), DDPMScheduler())
    with pytest.raises(ValueError, match="cannot draw images here"):
        pipe.scheduler = scheduler
    assert type(pipe.scheduler) is DDPMScheduler


@pytest.mark.parametrize("T", [100, 1000])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"beta_schedule": "scaled_linear"},
        ZERO,
        {"beta_schedule": "scaled_linear", **ZERO},
        {**COSINE, "prediction_type": "v_prediction"},
        {**COSINE, **ZERO},
        {**COSINE, "rescale_betas_zero_snr": True, "prediction_type": "sample"},
        COSINE,
        {"beta_schedule": "sigmoid", **ZERO},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", WORKING[1:])
def test_solvers_of_our_schedules_draw_the_data_or_are_refused(
    name: str, config: dict[str, object], T: int
) -> None:
    if T == 100 and "rescale_betas_zero_snr" not in config and config != COSINE:
        pytest.skip("of 100 such steps too much of the image is left at the end for any solver")
    ours = DDPMScheduler(T, timestep_spacing="trailing", **config)
    scheduler = getattr(diffusers, name).from_config(ours.config)
    model = DATA.denoiser(ours.betas.tolist(), ours.config.prediction_type)
    try:
        check_scheduler(scheduler)
    except ValueError as refused:
        assert name in str(refused)  # noqa: PT017
        assert name not in {"DDIMScheduler", "DDPMParallelScheduler"}
        return
    x = drawn(scheduler, model, 20)
    assert is_right(x) or (name in NARROW and x.std() < 0.31), (x.mean(), x.std())


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("HeunDiscreteScheduler", COSINE | ZERO, "steps of second order break down; use DDPM"),
        ("KDPM2AncestralDiscreteScheduler", COSINE | ZERO, "steps of second order break down"),
        ("EulerDiscreteScheduler", COSINE, "epsilon says next to nothing .*; use DDPMScheduler"),
        ("UniPCMultistepScheduler", COSINE, "epsilon says next to nothing of the image"),
        ("PNDMScheduler", {**ZERO, "prediction_type": "sample"}, "prediction_type given as samp"),
        ("EulerAncestralDiscreteScheduler", {"prediction_type": "sample"}, "not implemented yet"),
        ("LMSDiscreteScheduler", {"num_train_timesteps": 100, **ZERO}, "take x_T to hold 60%"),
    ],
)
def test_solvers_that_break_are_refused_with_the_reason(
    tiny_unet: MakeUNet, name: str, config: dict[str, object], message: str
) -> None:
    pipe = DDPMPipeline(tiny_unet(), DDPMScheduler(**config))
    with pytest.raises(ValueError, match=f"{name} cannot draw images here: .*{message}"):
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)


@pytest.mark.parametrize("limit", [{"thresholding": True}, {"lambda_min_clipped": -5.1}])
def test_solvers_that_limit_the_image_may_predict_epsilon(limit: dict[str, object]) -> None:
    ours = DDPMScheduler(timestep_spacing="trailing", **COSINE)
    solver = diffusers.DPMSolverMultistepScheduler.from_config(ours.config, **limit)
    check_scheduler(solver)
    assert is_right(drawn(solver, DATA.denoiser(ours.betas.tolist(), "epsilon"), 20))


def test_betas_that_end_at_one_are_refused_where_they_divide_by_zero() -> None:
    betas = DDPMScheduler(**COSINE, **ZERO).betas.tolist()
    config = {"trained_betas": betas, "prediction_type": "v_prediction"}
    check_scheduler(diffusers.DDIMScheduler(**config))
    for name in ("EulerDiscreteScheduler", "UniPCMultistepScheduler", "LMSDiscreteScheduler"):
        with pytest.raises(ValueError, match=r"zero terminal SNR.*use DDPMScheduler or DDIM"):
            check_scheduler(made(name, **config))


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True}, "flow matching"),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous"}, "timestep_type='discrete'"),
        ("CogVideoXDDIMScheduler", {}, "snr_shift_scale=1.0"),
    ],
)
def test_options_of_other_kinds_of_models_are_refused(
    name: str, config: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_scheduler(made(name, **config))
    if name == "CogVideoXDDIMScheduler":
        check_scheduler(made(name, snr_shift_scale=1.0))


def test_a_subclass_is_judged_as_what_it_is_of() -> None:
    class Mine(diffusers.EDMEulerScheduler):
        pass

    with pytest.raises(ValueError, match="scheduler Mine cannot draw images here"):
        check_scheduler(Mine())
    with pytest.raises(ValueError, match="scheduler str cannot draw images here: it has no"):
        check_scheduler("ddim")


@pytest.mark.parametrize("name", WORKING[1:])
@pytest.mark.parametrize("T", [20, 100])
def test_short_schedules_are_not_refused(name: str, T: int) -> None:
    if T < 50 and name in NARROW:
        return  # which need T of 50 or more
    check_scheduler(made(name, num_train_timesteps=T))


def test_looking_at_a_scheduler_draws_nothing_from_the_global_generator() -> None:
    torch.manual_seed(3)
    expected = torch.randn(3)
    torch.manual_seed(3)
    for name in WORKING:
        check_scheduler(made(name))
    assert torch.equal(torch.randn(3), expected)


@pytest.mark.parametrize(
    ("name", "steps"), [("PNDMScheduler", 2), ("LCMScheduler", 60), ("LCMScheduler", None)]
)
def test_a_number_of_steps_that_a_scheduler_cannot_make_is_named(
    tiny_unet: MakeUNet, name: str, steps: int | None
) -> None:
    pipe = quiet(DDPMPipeline(tiny_unet(), made(name)))
    with pytest.raises(ValueError, match=f"num_inference_steps={steps or 1000} is no chain of a"):
        pipe(1, None, steps)


# Networks.


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (torch.nn.DataParallel, "got a DataParallel around one; pass unet.module"),
        (lambda unet: unet.conv_in, "got a Conv2d, whose config has no sample_size, in_channels"),
        (lambda unet: unet.forward, "UNet2DModel, got a method"),
        (lambda _: None, "UNet2DModel, got a NoneType"),
        (lambda _: diffusers.UNet1DModel(), "got a UNet1DModel, whose config has no num_class"),
    ],
)
def test_networks_of_other_kinds_are_refused(
    tiny_unet: MakeUNet, wrap: Callable[[diffusers.UNet2DModel], object], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        check_network(wrap(tiny_unet()))
    with pytest.raises(TypeError, match=message):
        DDPMPipeline(wrap(tiny_unet()), DDPMScheduler())


def test_a_network_that_needs_more_is_refused() -> None:
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(8, block_out_channels=(32, 32, 32, 32))
    with pytest.raises(TypeError, match="UNet2DConditionModel, which also needs encoder_hidden"):
        check_network(unet)


def test_a_network_of_ones_own_that_answers_with_a_tensor_works(tiny_unet: MakeUNet) -> None:
    class Mine(torch.nn.Module):
        def __init__(self, unet: diffusers.UNet2DModel) -> None:
            super().__init__()
            self.unet, self.config = unet, unet.config

        def forward(
            self, x: torch.Tensor, t: torch.Tensor, class_labels: torch.Tensor | None = None
        ) -> torch.Tensor:
            return self.unet(x, t, class_labels=class_labels).sample

    images = [
        quiet(DDPMPipeline(unet, DDPMScheduler(20)))(
            2, torch.Generator().manual_seed(0), 5, "pt"
        ).images
        for unet in (tiny_unet(), Mine(tiny_unet()))
    ]
    assert torch.equal(*images)


def test_a_compiled_network_draws_and_is_saved(tiny_unet: MakeUNet, tmp_path: object) -> None:
    unet = tiny_unet()
    compiled = quiet(DDPMPipeline(torch.compile(unet, backend="eager"), DDPMScheduler(20)))
    plain = quiet(DDPMPipeline(unet, DDPMScheduler(20)))
    draws = [p(2, torch.Generator().manual_seed(0), 5, "pt").images for p in (compiled, plain)]
    torch.testing.assert_close(*draws, rtol=0, atol=1e-5)
    compiled.save_pretrained(tmp_path)
    again = DDPMPipeline.from_pretrained(tmp_path).unet.state_dict()
    assert all(torch.equal(again[name], value) for name, value in unet.state_dict().items())


@pytest.mark.parametrize(
    "wrap", [torch.nn.DataParallel, lambda m: torch.compile(m, backend="eager")]
)
def test_measures_take_wrapped_networks(
    tiny_unet: MakeUNet, wrap: Callable[[torch.nn.Module], torch.nn.Module]
) -> None:
    unet, scheduler = tiny_unet(sample_size=None), DDPMScheduler(10)
    x_0 = torch.randint(0, 256, (8, 1, 8, 8)) / 127.5 - 1

    def measure(network: torch.nn.Module) -> list[float]:
        generator = torch.Generator().manual_seed(0)
        bound = variational_bound(network, scheduler, x_0, generator=generator).bits_per_dim
        made_of = calibrate(network, scheduler, [x_0], generator=generator)
        scheduler.with_calibration(made_of).check_weights(unet)
        return [bound, *made_of.x_0_error.tolist()]

    assert measure(wrap(unet)) == pytest.approx(measure(unet), rel=1e-5)
    classes = wrap(tiny_unet(num_class_embeds=3))
    with pytest.raises(ValueError, match="class_labels must be given, one for each image"):
        variational_bound(classes, scheduler, x_0)
    with pytest.raises(TypeError, match=r"must be called as model\(x_t, t\), got a Linear"):
        variational_bound(torch.nn.Linear(8, 8), scheduler, x_0)


def test_a_file_that_lacks_weights_is_refused(
    tiny_unet: Callable[..., diffusers.UNet2DModel], tmp_path: Path
) -> None:
    DDPMPipeline(tiny_unet(), DDPMScheduler(20)).save_pretrained(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    last = max(tensors)
    save_file({name: value for name, value in tensors.items() if name != last}, file)
    with pytest.raises(OSError, match=rf"lacks 1 of them, such as {last}; save or download"):
        DDPMPipeline.from_pretrained(tmp_path)
    check_whole(tiny_unet(), "model")


def test_a_stock_scheduler_becomes_ours_and_others_stay() -> None:
    ours = usable_scheduler(diffusers.DDPMScheduler(20))
    assert type(ours) is DDPMScheduler
    ddim = diffusers.DDIMScheduler(20)
    assert usable_scheduler(ddim) is ddim
