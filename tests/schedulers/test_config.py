"""A saved config is the one that comes back, as diffusers asks of each of its schedulers."""

from collections.abc import Iterator
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from ddpm_pipeline import DDPMScheduler

STOCK = diffusers.DDPMScheduler
COMMON = [
    {},
    {"num_train_timesteps": 7},
    {"beta_start": 0.01, "beta_end": 0.2, "beta_schedule": "scaled_linear"},
    {"beta_schedule": "sigmoid"},
    {"trained_betas": np.array([0.1, 0.3]), "num_train_timesteps": 2},
    {"variance_type": "fixed_large", "clip_sample": False},
    {"thresholding": True, "clip_sample": False},
    {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
]
OUR_OWN = [
    {"timestep_spacing": "quadratic"},
    {"variance_type": "fixed_large_log", "beta_schedule": "laplace"},
]


def pairs(folder: Path, cls: type[STOCK], config: dict) -> Iterator[tuple[STOCK, STOCK]]:
    """A scheduler and what is loaded of it: once saved, saved again, and by its config."""
    scheduler = cls(**config)
    scheduler.save_pretrained(folder / "once")
    loaded = cls.from_pretrained(folder / "once")
    yield scheduler, loaded
    loaded.save_pretrained(folder / "twice")
    yield loaded, cls.from_pretrained(folder / "twice")
    yield loaded, cls.from_config(loaded.config)


@pytest.mark.parametrize(
    ("cls", "config"),
    [*((STOCK, c) for c in COMMON), *((DDPMScheduler, c) for c in COMMON + OUR_OWN)],
)
def test_the_config_of_a_loaded_scheduler_is_the_saved_one(
    tmp_path: Path, cls: type[STOCK], config: dict
) -> None:
    for saved, loaded in pairs(tmp_path, cls, config):
        expected = dict(saved.config)
        expected.pop("_use_default_values", None)  # a file has all values, none left at a default
        if isinstance(expected["trained_betas"], np.ndarray):
            expected["trained_betas"] = expected["trained_betas"].tolist()
        assert dict(loaded.config) == expected


@pytest.mark.parametrize("config", COMMON + OUR_OWN, ids=str)
def test_a_loaded_scheduler_steps_as_the_saved_one(tmp_path: Path, config: dict) -> None:
    x_t = torch.rand(4, 3, 8, 8)
    for saved, loaded in pairs(tmp_path, DDPMScheduler, config):
        for t in (1, 0):
            first, second = (
                scheduler.step(0.1 * x_t, t, x_t, generator=torch.Generator().manual_seed(t))
                for scheduler in (saved, loaded)
            )
            assert torch.equal(first.prev_sample, second.prev_sample)


def test_an_option_left_at_its_default_is_the_default_of_another_class() -> None:
    ours = DDPMScheduler()
    lms = diffusers.LMSDiscreteScheduler
    assert lms.from_config(ours.config).config.timestep_spacing == "linspace"
    chosen = DDPMScheduler(timestep_spacing="trailing")
    assert lms.from_config(chosen.config).config.timestep_spacing == "trailing"


def test_attributes_are_answered_as_by_stock() -> None:
    x_t = torch.rand(4, 3, 8, 8)
    for scheduler in (STOCK(), DDPMScheduler()):
        scheduler.register_to_config(added=5)
        with pytest.warns(FutureWarning, match="added"):
            assert scheduler.added == 5
        with pytest.raises(AttributeError, match="has no attribute 'no'"):
            _ = scheduler.no
        assert scheduler.init_noise_sigma == 1
        assert scheduler.scale_model_input(x_t, 0.0) is x_t


@pytest.mark.parametrize(
    "private",
    [
        [1],
        5,
        None,
        {"options": 5},
        {"options": {"num_train_timesteps": {"stock": 10, "value": 77}}},
        {"options": {"clip_sample": {"stock": True, "value": False}}},
        {"options": {"variance_type": {"stock": "fixed_small", "value": "fixed_large"}}},
        {"options": {"variance_type": {"stock": "fixed_large", "value": "analytic"}}},
        {"options": {"variance_type": {"stock": "fixed_small"}}},
        {"options": {"variance_type": ["analytic"]}},
        {"solver": {"name": "os.system"}},
        {"solver": {"evil": 1}},
        {"solver": 3},
        {"calibration": {}},
        {"calibration": {"last_noise_levels": "2"}},
        {"calibration": {"last_noise_levels": 2.0}},
        {"calibration": 5},
    ],
)
def test_a_private_entry_sets_what_is_ours_and_nothing_else(private: object) -> None:
    config = {**DDPMScheduler(10).config, "_ddpm_pipeline": private}
    with pytest.raises(ValueError, match=r"_ddpm_pipeline|solver|calibration|last_noise_levels"):
        DDPMScheduler.from_config(config)


def test_more_timesteps_than_any_model_has_are_refused_at_once() -> None:
    for options in ({}, {"beta_schedule": "squaredcos_cap_v2"}):
        with pytest.raises(ValueError, match="num_train_timesteps must be an integer from 1 to"):
            DDPMScheduler(10**7, **options)
