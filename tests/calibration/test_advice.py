"""What a calibration recommends: the fewest steps that are as good as all, and what they draw."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.calibrations import known
from helpers.coloured_noise import SHAPE, ColouredNoise
from torch import Tensor

from ddpm_pipeline import DDPMScheduler, NoiseSchedule, calibrate
from ddpm_pipeline.calibration.advice import by_closed_form, by_distance
from ddpm_pipeline.calibration.choice import takes_advice
from ddpm_pipeline.calibration.config import CalibrateConfig
from ddpm_pipeline.calibration.saved_model import _kept_scheduler
from ddpm_pipeline.schedulers import Solver

if TYPE_CHECKING:
    from pathlib import Path

DDPM = {"fixed_small trailing": {5: 90.0, 8: 50.0, 1000: 10.0}}


def test_the_fewest_steps_that_are_as_good_as_all_are_taken() -> None:
    rows = {
        **DDPM,
        "analytic optimal": {5: 99.0, 8: 98.0, 1000: 9.5},
        "multistep optimal_samples": {5: 30.0, 8: 9.4},
        "multistep_3 optimal_samples": {5: 31.0, 8: 9.3},
        "ddim trailing": {5: 60.0, 8: 40.0, 1000: 12.0},
    }
    advice = by_distance(rows, 1000, 500)
    assert advice.solver == Solver("multistep", order=3, num_inference_steps=8)
    assert advice.options == {"timestep_spacing": "optimal_samples"}
    assert advice.sentence == (
        "For this model 8 steps of multistep_3 on optimal_samples steps are as good as 1,000: a "
        "Fréchet distance of 9.3 against 9.5 of analytic, 500 images."
    )


def test_a_share_of_noise_is_saved_with_the_model(tmp_path: Path) -> None:
    rows = {**DDPM, "multistep optimal_samples": {8: 9.4}, "multistep_sde optimal_samples": {8: 9}}
    advice = by_distance(rows, 1000, 500)
    expected = Solver("multistep", eta=0.5, num_inference_steps=8)
    assert advice.solver == expected
    options = CalibrateConfig(model=".", data="d")
    kept = _kept_scheduler(options, DDPMScheduler(1000), known(), rows, advice)
    kept.save_pretrained(tmp_path)
    assert DDPMScheduler.from_pretrained(tmp_path).solver == expected


def test_where_none_are_as_good_it_says_so() -> None:
    rows = {**DDPM, "analytic_ddim trailing": {5: 20.0, 8: 15.0}}
    advice = by_distance(rows, 1000, 500)
    assert advice.solver == Solver("ddim", num_inference_steps=8)
    assert advice.options == {"timestep_spacing": "trailing", "variance_type": "analytic"}
    assert "8 steps of analytic_ddim on trailing steps come nearest to 1,000" in advice.sentence
    assert not advice.is_as_good
    assert by_distance({"ddim trailing": {5: 1.0}}, 1000, 500) is None
    assert by_distance({"ddim trailing": {1000: 1.0}}, 1000, 500) is None


def test_a_model_is_not_saved_with_steps_that_only_come_nearest() -> None:
    saved, options = DDPMScheduler(1000), CalibrateConfig(model=".", data="d")
    found = known()
    for of_25, expected in ((55.0, Solver()), (19.0, Solver("multistep", num_inference_steps=25))):
        rows = {
            "multistep optimal_samples": {10: 60.0, 25: of_25},
            "fixed_large trailing": {1000: 20.0},
        }
        advice = by_distance(rows, 1000, 500)
        assert _kept_scheduler(options, saved, found, rows, advice).solver == expected


class Exact(ColouredNoise):
    """The best network for coloured noise, in any prediction."""

    def __init__(self, scheduler: DDPMScheduler) -> None:
        super().__init__(scheduler.schedule)
        self.kind = scheduler.config.prediction_type

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        x_0 = super().__call__(x_t, t)
        signal, noise = (
            level(t).sqrt().reshape(-1, 1, 1, 1).to(x_t)
            for level in (self.schedule.alpha_bar, self.schedule.one_minus_alpha_bar)
        )
        eps = (x_t - signal * x_0) / noise
        return {"epsilon": eps, "sample": x_0, "v_prediction": signal * eps - noise * x_0}[
            self.kind
        ]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_closed_form_keeps_its_word_for_either_prediction(kind: str) -> None:
    """A calibration by forwards chooses, and the scheduler as it is saved draws."""
    plain = DDPMScheduler(100, beta_end=0.2, prediction_type=kind, clip_sample=False)
    network = Exact(plain)
    found = calibrate(
        network,
        plain,
        [network.sample(100, seed=i) for i in range(4)],
        generator=torch.Generator().manual_seed(0),
        num_forwards=400,
        decoder="continuous",
    )
    advice = by_closed_form(found, plain.schedule)
    options = {"variance_type": plain.variance_type, **advice.options}
    chosen = plain.with_calibration(found, solver=advice.solver, **options)
    saved = DDPMScheduler.from_config(dict(chosen.config))
    K = saved.solver.num_inference_steps
    saved.set_timesteps(K)
    # One component each, from one standard deviation of noise; the map is linear.
    x = network.basis.to_pixels(torch.eye(162, dtype=torch.float64).reshape(-1, *SHAPE))
    for t in saved.timesteps:
        x = saved.step(network(x, t.expand(len(x))), t, x).prev_sample
    drawn = network.basis.to_frequencies(x).reshape(162, 162).diagonal()
    error = (drawn - network.variance.sqrt().flatten()).square().mean().sqrt()
    assert f"{K} steps of multistep on optimal_samples" in advice.sentence
    assert float(127.5 * error) < 2.5  # of what was measured, and not of the data themselves


def test_a_chain_that_begins_before_the_noise_says_what_that_costs() -> None:
    """What exact steps make of white noise is the end of the flow: c times 1 / sqrt(V_T)."""
    long, short = (ColouredNoise(NoiseSchedule.linear(T)) for T in (1000, 100))
    assert "exact" not in by_closed_form(long.calibration(), long.schedule).sentence
    variance, signal = short.variance, float(short.schedule.alpha_bar(99))  # 0.36
    drawn = (variance / (signal * variance + 1 - signal)).sqrt()
    off = 127.5 * float((drawn - variance.sqrt()).square().mean().sqrt())
    sentence = by_closed_form(short.calibration(), short.schedule).sentence
    assert f"; exact steps would be {off:.2g} off, since the noise of the model's" in sentence


def test_without_a_spectrum_nothing_is_said() -> None:
    assert by_closed_form(known(), NoiseSchedule.linear(1000)) is None


def test_what_a_user_chose_stays() -> None:
    def takes(own: Solver = Solver(), **options: str) -> bool:  # noqa: B008
        scheduler = DDPMScheduler(100)
        scheduler.set_solver(own)
        return takes_advice(CalibrateConfig(model=".", data="d", **options), scheduler)

    assert takes()
    assert takes(Solver("multistep", num_inference_steps=8))
    assert not takes(Solver("multistep"))
    for name, value in product(("variance_type", "solver"), ("as_saved",)):
        assert not takes(**{name: value})
    assert not takes(timestep_spacing="optimal")
