"""Posteriors of Gaussian images are exact, whatever is known of them and however few the steps."""

from __future__ import annotations

import pytest
import torch
from helpers.coloured_noise import coloured_scheduler
from helpers.gaussian_images import GaussianImages, largest_z
from helpers.oracles import linear_betas
from helpers.pipelines import pipeline, seeds

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.pipelines import PosteriorMethod
from ddpm_pipeline.pipelines.tasks.conditioned import posterior_steps
from ddpm_pipeline.pipelines.tasks.moments import Measurement
from ddpm_pipeline.pipelines.tasks.operators import LinearOperator, missing, named_operator

SHAPE = (1, 3, 3)
DATA = GaussianImages.smooth(SHAPE)
X = DATA.sample(1, seed=5)
HOLE = torch.zeros(1, 1, 3, 3)
HOLE[..., 1:, 1] = 1
KNOWN = torch.eye(9, dtype=torch.float64)[HOLE.flatten() == 0]
# Of the largest of 45 covariances and 9 means, in standard errors: one in some thousands.
LARGEST_Z = 4.5


def gaussian_pipe(prediction_type: str = "epsilon", **config: object) -> DDPMPipeline:
    denoiser = DATA.denoiser(linear_betas(), prediction_type)
    return pipeline(denoiser, prediction_type=prediction_type, clip_sample=False, **config)


def how(count: int, steps: int) -> dict:
    return {
        "batch_size": count,
        "max_batch_size": count,
        "generator": torch.Generator().manual_seed(0),
        "num_inference_steps": steps,
        "output_type": "pt",
    }


def unit(x: torch.Tensor) -> torch.Tensor:
    return (x.float() + 1) / 2


def matrix_of(operator: LinearOperator) -> torch.Tensor:
    return operator(torch.eye(9).reshape(9, *SHAPE)).reshape(9, -1).T.double()


def check_filled(images: torch.Tensor) -> None:
    hole, x = HOLE.flatten() > 0, 2 * images - 1
    torch.testing.assert_close(
        x.flatten(1)[:, ~hole], X.float().flatten()[~hole].expand(len(x), -1)
    )
    mean, covariance = DATA.posterior(KNOWN, KNOWN @ X.flatten(), 0.0)
    z = largest_z(x.flatten(1)[:, hole], mean[hole], covariance[hole][:, hole])
    assert max(z) < LARGEST_Z


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_hole_is_filled_by_the_exact_posterior(prediction_type: str) -> None:
    pipe = gaussian_pipe(prediction_type)
    check_filled(pipe.inpaint(unit(X), HOLE, **how(4000, 4)).images)


@pytest.mark.parametrize("name", ["blur:0.8", "missing", "any"])
def test_what_was_measured_is_undone_by_the_exact_posterior(name: str) -> None:
    random = torch.randn(4, 9, generator=seeds(3)[0])
    operators = {
        "any": (lambda x: x.flatten(1) @ random.T, lambda u: (u @ random).reshape(-1, *SHAPE)),
        "missing": "missing",
    }
    A = {"any": random.double(), "missing": KNOWN}.get(name)
    A = matrix_of(named_operator(name, (3, 3), None)) if A is None else A
    std = 0.02
    measured = A @ unit(X).flatten().double()
    measured = measured + std * torch.randn(len(A), generator=seeds(4)[0], dtype=torch.float64)
    y = measured.float()[None]
    if name == "missing":
        y = torch.zeros(1, *SHAPE).masked_scatter(HOLE == 0, measured.float())
    elif name != "any":
        y = y.reshape(1, *SHAPE)
    images = (
        gaussian_pipe()
        .restore(
            y,
            operators.get(name, name),
            std,
            mask=HOLE if name == "missing" else None,
            **how(4000, 4),
        )
        .images
    )
    of_model = 2 * measured - A @ torch.ones(9, dtype=torch.float64)
    assert max(largest_z(2 * images - 1, *DATA.posterior(A, of_model, 2 * std))) < LARGEST_Z


@pytest.mark.parametrize("options", [{"eta": 0.0}, {"eta": 0.5}, {"num_inference_steps": 2}])
def test_other_noise_of_the_steps_and_fewer_steps_are_exact_too(options: dict) -> None:
    pipe = gaussian_pipe()
    check_filled(pipe.inpaint(unit(X), HOLE, **{**how(3000, 3), **options}).images)


def test_chains_that_end_far_from_the_data_draw_too_little_as_documented() -> None:
    hole = HOLE.flatten() > 0
    exact = DATA.posterior(KNOWN, KNOWN @ X.flatten(), 0.0)[1][hole][:, hole].diagonal().sqrt()
    ratios = {}
    for spacing in ("leading", "trailing"):
        pipe = gaussian_pipe(timestep_spacing=spacing)
        images = pipe.inpaint(unit(X), HOLE, **how(1000, 5)).images
        ratios[spacing] = (2 * images - 1).flatten(1)[:, hole].std(0) / exact
    assert (ratios["leading"] - 1).abs().max() < 0.1
    assert ratios["trailing"].max() < 0.2


def test_draws_that_reach_beyond_white_are_not_clamped_on_the_way() -> None:
    data = GaussianImages.smooth(SHAPE, std=1.4, reach=0.1)
    drawn = []
    for clips in (True, False):
        pipe = pipeline(data.denoiser(linear_betas()), clip_sample=clips)
        drawn.append(pipe.inpaint(unit(X), HOLE, **how(50, 6)).images)
    assert torch.equal(*drawn)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4)])
@pytest.mark.parametrize("steps", [10, 50])
def test_20000_draws_have_the_moments_of_the_posterior(
    shape: tuple[int, int, int], steps: int
) -> None:
    data = GaussianImages.smooth(shape)
    pipe = pipeline(data.denoiser(linear_betas()), clip_sample=False)
    x = data.sample(1, seed=5)
    hole = torch.zeros(1, 1, 4, 4)
    hole[..., 1:3, 1:4] = 1
    is_hole = hole.expand(1, *shape).flatten() > 0
    A = torch.eye(len(data.mean), dtype=torch.float64)[~is_hole]
    images = pipe.inpaint(unit(x), hole, **how(20_000, steps)).images
    mean, covariance = data.posterior(A, A @ x.flatten(), 0.0)
    found = (2 * images - 1).flatten(1)[:, is_hole]
    z = largest_z(found, mean[is_hole], covariance[is_hole][:, is_hole])
    assert max(z) < LARGEST_Z


def test_an_image_does_not_depend_on_the_others() -> None:
    pipe = gaussian_pipe()
    images = unit(DATA.sample(3))
    options = {"num_inference_steps": 3, "output_type": "pt"}
    three = pipe.inpaint(images, HOLE, generator=seeds(1, 2, 3), **options).images
    alone = pipe.inpaint(images[1:2], HOLE, generator=seeds(2), **options).images
    assert torch.equal(alone, three[1:2])
    holes = torch.cat([HOLE, HOLE.mT, HOLE])
    each = pipe.inpaint(images, holes, generator=seeds(1, 2, 3), max_batch_size=2, **options)
    torch.testing.assert_close(each.images[[0, 2]], three[[0, 2]], rtol=0, atol=1e-3)
    several = pipe.inpaint(images[:1], holes, generator=seeds(1, 2, 3), **options).images
    torch.testing.assert_close(several[0], three[0], rtol=0, atol=1e-3)


def test_zero_terminal_snr_is_exact_but_for_its_first_step() -> None:
    from ddpm_pipeline import NoiseSchedule

    betas = NoiseSchedule.linear().zero_terminal_snr().betas.numpy()
    pipe = pipeline(
        DATA.denoiser(betas, "v_prediction"),
        prediction_type="v_prediction",
        clip_sample=False,
        rescale_betas_zero_snr=True,
        timestep_spacing="linspace",
    )
    check_filled(pipe.inpaint(unit(X), HOLE, **how(3000, 12)).images)


def test_the_calibrated_covariance_needs_a_calibration() -> None:
    pipe = gaussian_pipe()
    with pytest.raises(ValueError, match="covariance 'calibrated' needs a calibration"):
        pipe.inpaint(unit(X), HOLE, method=PosteriorMethod(covariance="calibrated"), **how(2, 2))


def test_the_covariance_of_a_calibration_is_exact_where_frequencies_are_independent() -> None:
    scheduler, data = coloured_scheduler()
    scheduler.set_timesteps(4)
    x_0 = data.sample(1, seed=2)
    hole = torch.zeros(1, 1, 6, 9)
    hole[..., 2:4, 3:5] = 1
    operator, count, calls = missing(hole), 1000, []

    def network(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(t)
        return data(x_t.double(), t.expand(len(x_t))).float()

    source = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 3, 6, 9, generator=source)
    y = operator(x_0.float()).expand(count, -1, -1, -1)
    method = PosteriorMethod(covariance="calibrated")
    steps = posterior_steps(
        network, scheduler, noise, Measurement(operator, y, 0.0), method, generator=source
    )
    *_, last = steps
    assert len(calls) == 4
    maps = data.basis.to_pixels(torch.eye(162, dtype=torch.float64).reshape(162, 3, 6, 9))
    covariance = maps.flatten(1).T @ (data.variance.flatten()[:, None] * maps.flatten(1))
    is_hole = hole.expand(1, 3, 6, 9).flatten() > 0
    images = GaussianImages((3, 6, 9), torch.zeros(162, dtype=torch.float64), covariance)
    A = torch.eye(162, dtype=torch.float64)[~is_hole]
    mean, covariance = images.posterior(A, A @ x_0.flatten(), 0.0)
    found = last.image.flatten(1)[:, is_hole]
    z = largest_z(found, mean[is_hole], covariance[is_hole][:, is_hole])
    assert max(z) < LARGEST_Z
