"""Solvers of a call, and of `ddpm sample`: whose they are, and what contradicts them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UniPCMultistepScheduler
from helpers.coloured_noise import coloured_scheduler
from helpers.pipelines import options, pipeline

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.pipelines.config import SamplingOptions
from ddpm_pipeline.pipelines.sampling import ImageSampler, load_image_sampler
from ddpm_pipeline.schedulers import Solver


def draw(pipe: DDPMPipeline, **arguments: object) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return pipe(2, generator, 5, "np", **arguments).images


def test_a_call_has_its_solver_and_the_pipeline_keeps_its_own(tiny_unet: object) -> None:
    pipe = pipeline(tiny_unet(), prediction_type="sample", clip_sample=False)
    plain = draw(pipe)
    multistep = draw(pipe, solver="multistep")
    assert pipe.scheduler.solver == Solver()
    assert np.array_equal(draw(pipe), plain)
    assert not np.array_equal(multistep, plain)
    assert np.array_equal(draw(pipe, solver="ddim"), draw(pipe, eta=0.0))
    assert not np.array_equal(draw(pipe, solver=Solver("multistep", order=3)), multistep)
    pipe.scheduler.set_solver("multistep")
    assert np.array_equal(draw(pipe), multistep)
    assert np.array_equal(draw(pipe, solver="ddpm"), plain)
    assert np.array_equal(draw(pipe, eta=0.0), draw(pipe, solver="ddim"))
    pipe.scheduler.set_solver("multistep", order=3)
    third = draw(pipe)
    assert np.array_equal(draw(pipe, solver="multistep"), third)
    assert np.array_equal(draw(pipe, solver=Solver("multistep")), multistep)
    assert not np.array_equal(third, multistep)


def test_calls_that_take_turns_do_not_mix_their_histories(tiny_unet: object) -> None:
    pipe = pipeline(tiny_unet(), prediction_type="sample", clip_sample=False)
    pipe.scheduler.set_solver("multistep", order=3)
    walks = [pipe.progressive(2, torch.Generator().manual_seed(i), 5, "np") for i in range(2)]
    alone = [list(pipe.progressive(2, torch.Generator().manual_seed(i), 5, "np")) for i in (0, 1)]
    for k, steps in enumerate(zip(*walks, strict=True)):
        for own, step in zip(alone, steps, strict=True):
            assert np.array_equal(own[k][1], step[1])


def test_shares_of_a_request_do_not_mix_their_histories(tiny_unet: object) -> None:
    pipe = pipeline(tiny_unet(), prediction_type="sample", clip_sample=False)
    noise = torch.randn(4, 1, 8, 8)
    whole = pipe(4, None, 5, "np", noise=noise, solver="multistep").images
    shares = pipe(4, None, 5, "np", noise=noise, solver="multistep", max_batch_size=2).images
    np.testing.assert_allclose(shares, whole, atol=1e-5)


def test_what_contradicts_a_solver_is_refused(tiny_unet: object) -> None:
    pipe = pipeline(tiny_unet(), prediction_type="sample", clip_sample=False)
    with pytest.raises(
        ValueError,
        match=r"eta is for solvers 'ddim' and 'multistep', got eta=0.5 and solver='ddpm'",
    ):
        draw(pipe, solver="ddpm", eta=0.5)
    with pytest.raises(
        ValueError, match="solver must be one of ddpm, ddim, multistep, spectral, got 'pndm"
    ):
        draw(pipe, solver="pndm")
    with pytest.raises(ValueError, match="solver 'spectral' needs a calibration, got None"):
        pipe.progressive(2, None, 5, "np", solver="spectral")  # before the network is called
    with pytest.raises(ValueError, match="order of solver must be at most K = 2, got 3"):
        pipe(1, None, 2, solver=Solver("multistep", order=3))
    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(ValueError, match="solver cannot be chosen for a UniPCMultistepScheduler"):
        draw(pipe, solver="multistep")


def test_eta_beside_multistep_is_the_solvers(tiny_unet: object) -> None:
    pipe = pipeline(tiny_unet(), prediction_type="sample", clip_sample=False)
    with pytest.raises(ValueError, match=r"eta must be that of the solver, 0\.3, .* got 0\.5"):
        draw(pipe, solver=Solver("multistep", eta=0.3), eta=0.5)
    by_eta = draw(pipe, solver="multistep", eta=0.5)
    np.testing.assert_array_equal(by_eta, draw(pipe, solver=Solver("multistep", eta=0.5)))
    plain = draw(pipe, solver="multistep")
    assert not np.array_equal(by_eta, plain)
    np.testing.assert_array_equal(draw(pipe, solver="multistep", eta=0.0), plain)
    pipe.scheduler.set_solver("multistep", order=1, eta=0.5)
    own = draw(pipe)
    np.testing.assert_array_equal(draw(pipe, solver="multistep"), own)
    assert not np.array_equal(draw(pipe, solver="multistep", eta=0.0), own)
    assert pipe.scheduler.solver.eta == 0.5


def sampler(model: str, **arguments: object) -> ImageSampler:
    return load_image_sampler(SamplingOptions(**options(model, **arguments)))


def test_sample_draws_with_a_solver(model: str) -> None:
    found = sampler(model, solver="multistep", num_inference_steps=4)
    assert found.pipe.scheduler.solver.name == "multistep"
    assert found.describe()["solver"] == "multistep"
    by_ddim = sampler(model, scheduler="ddim", num_inference_steps=4)
    assert "solver" not in by_ddim.describe()
    assert not np.array_equal(found(range(2)), by_ddim(range(2)))
    assert sampler(model, solver="ddim", eta=0.3).pipe.scheduler.solver.name == "ddim"
    noisy = sampler(model, solver="multistep", eta=0.3, num_inference_steps=4)
    assert noisy.pipe.scheduler.solver == Solver("multistep", eta=0.3)
    assert (noisy.describe()["solver"], noisy.describe()["eta"]) == ("multistep", 0.3)
    assert not np.array_equal(noisy(range(2)), found(range(2)))
    still = sampler(model, solver="multistep", eta=0.0, num_inference_steps=4)
    np.testing.assert_array_equal(still(range(2)), found(range(2)))


def test_sample_takes_what_the_model_was_saved_with_unless_told(model: str) -> None:
    pipe = DDPMPipeline.from_pretrained(model)
    assert sampler(model, num_inference_steps=None).num_steps == 50
    pipe.scheduler.set_solver("multistep", num_inference_steps=6)
    pipe.save_pretrained(model)
    own = sampler(model, num_inference_steps=None)
    assert own.pipe.scheduler.solver == Solver("multistep", num_inference_steps=6)
    assert own.num_steps == 6
    named = sampler(model, solver="multistep", num_inference_steps=None)
    assert (named.pipe.scheduler.solver, named.num_steps) == (own.pipe.scheduler.solver, 6)
    assert sampler(model, num_inference_steps=3).num_steps == 3
    ddim = sampler(model, scheduler="ddim", num_inference_steps=None)
    assert type(ddim.pipe.scheduler) is DDIMScheduler
    assert ddim.num_steps == 50
    for scheduler in (None, "as_saved"):  # DDIM's eta, or the solver's?
        with pytest.raises(ValueError, match=r"eta must come with .*, got eta=0\.2"):
            sampler(model, eta=0.2, scheduler=scheduler)
    assert type(sampler(model, eta=0.2, scheduler="ddim").pipe.scheduler) is DDIMScheduler
    assert sampler(model, eta=0.2, solver="ddim").pipe.scheduler.solver == Solver("ddim")
    assert sampler(model, scheduler="ddpm").pipe.scheduler.solver == Solver()


def test_a_saved_share_of_noise_is_told_and_asked_for_is_the_same(model: str) -> None:
    pipe = DDPMPipeline.from_pretrained(model)
    pipe.scheduler.set_solver("multistep", num_inference_steps=6, eta=0.5)
    pipe.save_pretrained(model)
    own = sampler(model, num_inference_steps=None)
    assert (own.num_steps, own.describe()["eta"]) == (6, 0.5)
    asked = sampler(model, num_inference_steps=None, solver="multistep", eta=0.5)
    assert asked.describe() == own.describe()
    np.testing.assert_array_equal(asked(range(2)), own(range(2)))
    whole = sampler(model, num_inference_steps=None, solver="multistep", eta=1)
    assert whole.pipe.scheduler.solver == Solver("multistep", num_inference_steps=6, eta=1.0)
    assert json.dumps(whole.pipe.scheduler.solver.to_dict()["eta"]) == "1.0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheduler": "ddpm", "solver": "ddim"}, "scheduler must be as_saved or left out beside"),
        ({"solver": "spectral", "eta": 0.1}, "eta is for solvers 'ddim' and 'multistep', got"),
        (
            {"scheduler": "ddpm", "eta": 0.1},
            "eta is for scheduler 'ddim' and for solvers, got eta",
        ),
        ({"solver": "multistep", "eta": 1.1}, "eta must be a number in .0, 1., got 1.1"),
        (
            {"solver": "unipc"},
            "solver must be one of ddpm, ddim, multistep, spectral, got 'unipc'",
        ),
    ],
)
def test_options_of_sampling_that_contradict_a_solver_are_refused(
    arguments: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingOptions(model="model", **arguments)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"solver": "spectral"}, "solver 'spectral' needs a calibration, got None"),
        ({"variance_type": "analytic"}, "variance_type 'analytic' needs a calibration, got None"),
        ({"variance_type": "spectral"}, "variance_type 'spectral' needs a calibration, got None"),
    ],
)
def test_what_lacks_its_calibration_is_refused_before_the_network_runs(
    tiny_unet: object, saved: dict, message: str
) -> None:
    pipe = pipeline(tiny_unet(), **{k: v for k, v in saved.items() if k != "solver"})
    if "solver" in saved:
        pipe.scheduler.set_solver(saved["solver"])
    pipe.unet.register_forward_pre_hook(lambda *_: pytest.fail("the network ran"))
    with pytest.raises(ValueError, match=message):
        pipe(1, num_inference_steps=2)
    with pytest.raises(ValueError, match=message):
        next(pipe.progressive(1, num_inference_steps=2))


def test_a_spectrum_of_other_images_is_refused_before_the_network_runs(tiny_unet: object) -> None:
    scheduler, _ = coloured_scheduler()
    pipe = DDPMPipeline(tiny_unet(), scheduler)
    pipe.unet.register_forward_pre_hook(lambda *_: pytest.fail("the network ran"))
    message = r"spectrum is that of images of shape \(3, 6, 9\), got \(1, 8, 8\)"
    with pytest.raises(ValueError, match=message):
        pipe(1, num_inference_steps=2)
    with pytest.raises(ValueError, match=message):
        pipe(1, num_inference_steps=2, solver="spectral")
    with pytest.raises(ValueError, match="order of solver must be at most K = 2, got 3"):
        pipe(1, num_inference_steps=2, solver=Solver("multistep", order=3))
