"""``calibrate`` against data whose errors are known, and against itself in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from helpers.exact_errors import denoising_errors
from helpers.oracles import gaussian, linear_betas, mixture
from helpers.processes import exit_codes, fork_ranks
from torch import Tensor
from torch.testing import assert_close

from ddpm_pipeline import Calibration, DDPMScheduler, NoiseSchedule, calibrate
from ddpm_pipeline.diffusion.bound_terms import bits_per_dim
from ddpm_pipeline.diffusion.costs import linear_error, move_costs, prior_cost, wiener_error
from ddpm_pipeline.diffusion.spacing import check_chain, spaced_timesteps
from ddpm_pipeline.schedulers.optimal import chain_bits_per_dim, optimal_timesteps

DATA = mixture()
LINEAR = NoiseSchedule.linear(1000)
TABLES = ("m", "x_0_error", "x_0_variance", "decoder_variance", "wiener_error", "decoder")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batches(count: int, size: int = 500, shape: tuple[int, ...] = (1, 4, 4)) -> list[Tensor]:
    return list(DATA.sample((count, *shape), seeded(1)).split(size))


def measured(
    prediction_type: str = "epsilon", count: int = 10_000, **options: object
) -> Calibration:
    scheduler = DDPMScheduler(prediction_type=prediction_type)
    model = DATA.denoiser(linear_betas(), prediction_type)
    options = {"generator": seeded(), "decoder": "continuous"} | options
    return calibrate(model, scheduler, batches(count), **options)


def is_same(first: Calibration, second: Calibration, rtol: float = 0.0) -> bool:
    spectra = first.spectrum, second.spectrum
    return all(
        torch.allclose(getattr(first, name), getattr(second, name), rtol=rtol, atol=1e-8 * rtol)
        for name in TABLES
    ) and all(
        torch.allclose(*(getattr(spectrum, name) for spectrum in spectra), rtol=1e-3, atol=1e-3)
        for name in ("channels", "data_variance", "log_ratio")
    )


# What is measured.


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_the_errors_of_a_perfect_network_are_found(prediction_type: str) -> None:
    found, exact = measured(prediction_type), denoising_errors(DATA)
    deviations = (found.x_0_error - exact) / found.x_0_error_standard_error
    assert 0.3 < deviations.square().mean().sqrt() < 2
    assert (found.x_0_error / exact - 1).square().mean().sqrt() < 0.03
    m = 1 - LINEAR.snr(torch.arange(1000)) * exact
    assert (found.m - m).abs().max() < 0.03
    assert ((found.m - m) / found.m_standard_error).square().mean().sqrt() < 2
    assert found.second_moment == pytest.approx(0.37, rel=0.01)
    assert (found.num_images, found.num_forwards, found.image_shape) == (10_000, 10_000, (1, 4, 4))


def test_the_standard_error_is_the_spread_over_repetitions() -> None:
    T, bits, claimed = 50, [], []
    betas = linear_betas(T, 0.001, 0.2)
    scheduler = DDPMScheduler(T, beta_start=0.001, beta_end=0.2)
    t = torch.arange(1, T)
    exact = denoising_errors(DATA, T, 0.001, 0.2)
    for seed in range(40):
        found = calibrate(
            DATA.denoiser(betas),
            scheduler,
            [DATA.sample((10 * T, 1, 4, 4), seeded(seed))],
            generator=seeded(seed),
            decoder="continuous",
        )
        # To first order in the errors, with the variances held at the right ones.
        costs = move_costs(scheduler.schedule, t, t - 1, found.x_0_error[t], x_0_variance=exact[t])
        decoder = found.x_0_error[0] / (2 * exact[0])
        bits.append((costs.sum() + decoder) / torch.tensor(2.0).log())
        claimed.append(found.standard_error)
    assert 0.6 < torch.stack(bits).std().item() / torch.tensor(claimed).mean().item() < 1.6


@pytest.mark.parametrize("estimate", ["error", "moment"])
def test_ten_images_per_timestep_give_the_variances_of_the_bound(estimate: str) -> None:
    exact, found = denoising_errors(DATA), measured(estimate=estimate).x_0_variance
    for K in (10, 50, 1000):
        t, s = torch.tensor(list(pairwise(spaced_timesteps(1000, K, "linspace").tolist()))).T
        nats = [move_costs(LINEAR, t, s, exact[t], x_0_variance=v[t]) for v in (found, exact)]
        assert (nats[0] - nats[1]).sum() / torch.tensor(2.0).log() < 0.005


def test_the_paper_s_moment_is_the_error_for_a_perfect_network_until_noise_drowns_it() -> None:
    error, moment = measured(), measured(estimate="moment")
    snr = LINEAR.snr(torch.arange(1000))
    from_m = (1 - moment.m) / snr
    near = snr > 0.1
    limit = linear_error(LINEAR, moment.second_moment)
    expected = torch.minimum(from_m, limit)
    assert_close(moment.x_0_variance[near], expected[near], rtol=1e-6, atol=0)
    assert (moment.x_0_variance / error.x_0_variance)[near].log().abs().max() < 0.2
    assert torch.equal(moment.x_0_variance[snr < 0.01], error.x_0_variance[snr < 0.01])


def test_x_0_variances_keep_the_analytic_variance_below_beta() -> None:
    def noise(x_t: Tensor, t: Tensor) -> Tensor:
        return x_t * 0 + 2 * torch.randn_like(x_t)

    found = calibrate(noise, DDPMScheduler(), batches(1000), num_forwards=1000, generator=seeded(),
                      decoder="continuous")  # fmt: skip
    assert (found.x_0_error > 1).any()
    assert (found.x_0_variance <= LINEAR.one_minus_alpha_bar(torch.arange(1000))).all()
    assert (found.x_0_variance > 0).all()


def test_zero_terminal_snr_is_measured_where_noise_alone_is_left() -> None:
    T = 100
    scheduler = DDPMScheduler(T, prediction_type="v_prediction", rescale_betas_zero_snr=True)

    def guess_zero(x_t: Tensor, t: Tensor) -> Tensor:
        noise = scheduler.schedule.one_minus_alpha_bar(t).sqrt().reshape(-1, 1, 1, 1)
        signal = scheduler.schedule.alpha_bar(t).sqrt().reshape(-1, 1, 1, 1)
        return signal * x_t / noise  # v for x_0_hat = 0

    for estimate in ("error", "moment"):
        found = calibrate(guess_zero, scheduler, batches(1000), generator=seeded(),
                          decoder="continuous", estimate=estimate)  # fmt: skip
        assert_close(found.x_0_error, torch.full((T,), 0.37).double(), rtol=0.1, atol=0)
        assert found.x_0_variance[-1] == pytest.approx(0.37, rel=0.1)
        assert found.x_0_variance.isfinite().all()


# In pieces, on processes and with real networks.


def test_neither_batches_nor_their_dtype_matter() -> None:
    whole = measured(count=2000, num_forwards=2000)
    model = DATA.denoiser(linear_betas())
    pieces = (x.float() for x in batches(2000, size=37))
    found = calibrate(model, DDPMScheduler(), pieces, num_forwards=2000, generator=seeded(),
                      decoder="continuous")  # fmt: skip
    assert is_same(whole, found, rtol=1e-4)


def test_data_are_read_again_and_errors_count_images() -> None:
    few = measured(count=250, num_forwards=1000)
    assert (few.num_images, few.num_forwards) == (250, 1000)
    many = measured(count=1000, num_forwards=1000)
    assert few.standard_error / many.standard_error == pytest.approx(2, rel=0.5)


class StopError(Exception):
    pass


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    options = {"num_forwards": 1000, "decoder": "continuous", "state_file": file}
    model, scheduler, data = DATA.denoiser(linear_betas()), DDPMScheduler(), batches(1000, 5)
    whole = calibrate(model, scheduler, data, **options | {"generator": seeded()})
    assert not file.exists()
    calls = []

    def dying(x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x_t))
        if len(calls) == 130:
            raise StopError
        return model(x_t, t)

    with pytest.raises(StopError):
        calibrate(dying, scheduler, data, **options, generator=seeded())
    with pytest.raises(ValueError, match=r"state_file .* other settings"):
        calibrate(model, scheduler, data, **options, generator=seeded(9))
    resumed = calibrate(dying, scheduler, data, **options)
    assert is_same(whole, resumed)
    assert not file.exists()
    assert len(calls) == 130 + 100  # two saves of 50 batches are not repeated


def test_class_labels_go_to_the_network_with_their_images(
    tiny_unet: Callable[..., torch.nn.Module],
) -> None:
    unet = tiny_unet(num_class_embeds=4)
    x_0 = batches(40, 10, (1, 8, 8))
    labels = torch.arange(40).remainder(4).split(10)
    scheduler = DDPMScheduler(num_train_timesteps=40)
    unet.train()
    found = calibrate(unet, scheduler, list(zip(x_0, labels, strict=True)),
                      generator=seeded(), num_forwards=40, decoder="continuous")  # fmt: skip
    assert unet.training
    assert found.weights.keys() == {"float32", "float16", "bfloat16"}
    other = calibrate(unet, scheduler, list(zip(x_0, reversed(labels), strict=True)),
                      generator=seeded(), num_forwards=40, decoder="continuous")  # fmt: skip
    assert not is_same(found, other)


def test_a_learned_variance_is_left_aside(tiny_unet: Callable[..., torch.nn.Module]) -> None:
    unet = tiny_unet(out_channels=2)
    scheduler = DDPMScheduler(40, variance_type="learned_range")
    options = {"num_forwards": 40, "decoder": "continuous"}

    def mean_only(x_t: Tensor, t: Tensor) -> Tensor:
        return unet(x_t, t).sample[:, :1]

    data = [x.float() for x in batches(40, 10, (1, 8, 8))]
    whole = calibrate(unet, scheduler, data, generator=seeded(), **options)
    half = calibrate(mean_only, DDPMScheduler(40), data, generator=seeded(), **options)
    assert is_same(whole, half, rtol=1e-6)


def test_processes_share_the_work_and_the_result(tmp_path: Path) -> None:
    def rank() -> None:
        accelerator = Accelerator(cpu=True)
        assert accelerator.num_processes == 2
        # The seed is that of the main process.
        found = measured(
            count=2000,
            num_forwards=2000,
            generator=seeded(accelerator.process_index),
            accelerator=accelerator,
        )
        torch.save(found.to_dict(), tmp_path / f"{accelerator.process_index}.pt")

    assert exit_codes(fork_ranks(rank, 2)) == [0, 0]
    first, second = (Calibration.from_dict(torch.load(tmp_path / f"{i}.pt")) for i in (0, 1))
    assert is_same(first, second)
    assert is_same(first, measured(count=2000, num_forwards=2000), rtol=1e-6)


def test_the_spectrum_of_the_data_is_measured() -> None:
    """Of waves around a mean, which is no part of it."""
    column = torch.tensor([0.1, 0.4, 0.2, 0.1]).outer(torch.ones(4))
    amplitude = 0.3 * torch.randn(1000, 1, 1, 1, generator=seeded())
    wave = torch.tensor([1.0, -1.0, 1.0, -1.0]).expand(4, 4)  # one component, of norm 4
    found = calibrate(
        DATA.denoiser(linear_betas(200)),
        DDPMScheduler(200),
        [column + amplitude * wave],
        num_forwards=1000,
        decoder="continuous",
    )
    schedule = DDPMScheduler(200).schedule
    spectrum = torch.zeros(16, dtype=torch.float64)
    spectrum[0] = 16 * amplitude.double().var(unbiased=False)
    expected = wiener_error(schedule, spectrum)
    assert_close(found.wiener_error, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(5,), (3, 4, 6)])
def test_the_spectrum_of_white_data_is_flat_in_any_shape(shape: tuple[int, ...]) -> None:
    x_0 = 0.5 * torch.randn(2000, *shape, generator=seeded(), dtype=torch.float64)
    found = calibrate(
        gaussian(0, 0.5).denoiser(linear_betas(200)),
        DDPMScheduler(200),
        [x_0],
        num_forwards=2000,
        decoder="continuous",
    )
    expected = linear_error(DDPMScheduler(200).schedule, 0.25)
    assert_close(found.wiener_error, expected, rtol=0.03, atol=0)


@pytest.mark.parametrize("level", [-1.0, 1 / 255])
def test_images_of_one_level_are_calibrated_and_spaced(level: float) -> None:
    """A network that knows them leaves nothing to decode, and they have no spectrum."""
    scheduler = DDPMScheduler(50, prediction_type="sample")
    x_0 = torch.full((40, 1, 4, 4), level)
    found = calibrate(lambda x, _: torch.full_like(x, level), scheduler, [x_0], num_forwards=200)
    schedule = scheduler.schedule
    prior = bits_per_dim(prior_cost(schedule, level**2, 49), 1)
    assert chain_bits_per_dim(found, schedule, range(49, -1, -1)) < prior + 0.01
    for objective in ("likelihood", "samples"):
        for K in (1, 2, 10):
            chain = optimal_timesteps(found, schedule, K, objective=objective)
            assert len(check_chain(chain, 50)) == K
            assert chain_bits_per_dim(found, schedule, chain) >= 0


# Mistakes.


def one_shot() -> Iterator[Tensor]:
    yield from batches(100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_forwards": 999}, "num_forwards must be an integer of at least 1000, .* got 999"),
        ({"num_forwards": 1e4}, "num_forwards must be an integer"),
        ({"precision": 0}, "precision must be above 0 bits per dimension, got 0"),
        ({"estimate": "mean"}, "estimate must be one of error, moment, got 'mean'"),
        ({"decoder": "none"}, "decoder must be one of discretized, continuous, got 'none'"),
        ({"x_0_batches": []}, "must hold at least one image, got none"),
        ({"x_0_batches": one_shot()}, "held 100 images and cannot be read again, .* is 10000"),
        (
            {"x_0_batches": [*batches(10), *batches(10, shape=(1, 2, 2))]},
            r"images of shape \(1, 4, 4\), got \(1, 2, 2\)",
        ),
        ({"decoder": "discretized"}, "must hold 8-bit images"),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    model = DATA.denoiser(linear_betas())
    arguments = {"x_0_batches": batches(100), "decoder": "continuous"} | options
    with pytest.raises(ValueError, match=message):
        calibrate(model, DDPMScheduler(), **arguments)


@pytest.mark.parametrize(
    ("x_0", "message"),
    [
        (torch.zeros(4, 1, 2, 2), "must be batches, such as .*, got a Tensor"),
        (
            [torch.zeros(4, 1, 2, 2, dtype=torch.uint8)],
            "floating point .*, got torch.uint8; for bytes",
        ),
        (["images"], "batches of tensors, or of pairs .*, got str"),
    ],
)
def test_data_of_another_type_are_refused(x_0: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        calibrate(DATA.denoiser(linear_betas()), DDPMScheduler(), x_0)


def test_stock_schedulers_are_refused() -> None:
    import diffusers

    with pytest.raises(TypeError, match=r"got DDPMScheduler; use DDPMScheduler\.from_config"):
        calibrate(DATA.denoiser(linear_betas()), diffusers.DDPMScheduler(), batches(10))


def test_images_of_another_resolution_are_refused(
    tiny_unet: Callable[..., torch.nn.Module],
) -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8\), got \(1, 4, 4\)"):
        calibrate(tiny_unet(), DDPMScheduler(), batches(10), decoder="continuous")


def test_too_few_images_for_the_precision_are_counted() -> None:
    error = measured(count=1000, num_forwards=1000).standard_error
    with pytest.raises(ValueError, match=r"about 1600[01] images"):  # 16 times as many for 1/4
        measured(count=1000, num_forwards=1000, precision=error / 4)
    assert measured(count=1000, num_forwards=1000, precision=error * 1.01).standard_error == error


def test_a_network_of_other_channels_is_refused(
    tiny_unet: Callable[..., torch.nn.Module],
) -> None:
    with pytest.raises(ValueError, match="model_output must have 1 channels"):
        calibrate(tiny_unet(out_channels=2), DDPMScheduler(40),
                  batches(40, shape=(1, 8, 8)), decoder="continuous")  # fmt: skip
