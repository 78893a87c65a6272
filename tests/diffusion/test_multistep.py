"""Steps of high order: stock's solvers, their order of convergence, and what they must keep."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp
from torch.testing import assert_close

from ddpm_pipeline.diffusion.forward_process import posterior
from ddpm_pipeline.diffusion.multistep import MultistepMove, multistep_moves
from ddpm_pipeline.diffusion.schedule import NoiseSchedule
from tests.helpers.oracles import mixture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Denoise = Callable[[Tensor, int], Tensor]

SCHEDULES = [NoiseSchedule.cosine(100), NoiseSchedule.cosine(100).zero_terminal_snr()]
OPTIONS = list(itertools.product((1, 2, 3), (False, True), ("bh1", "bh2")))


def walk(
    moves: Sequence[MultistepMove], denoise: Denoise, timesteps: Sequence[int], x: Tensor
) -> list[Tensor]:
    """The states before every step, and the last."""
    found, states = [], [x]
    for move, t in zip(moves, timesteps, strict=True):
        found.insert(0, denoise(x, int(t)))
        terms = zip(move.from_x_0, found, strict=False)
        x = move.from_x_t * x + sum(weight * x_0_hat for weight, x_0_hat in terms)
        states.append(x)
    return states


def even_schedule(T: int = 3 * 2**10 + 1) -> NoiseSchedule:
    """Half the log SNR evenly from 4 to -3."""
    log_snr = torch.linspace(4, -3, T, dtype=torch.float64)
    return NoiseSchedule(-torch.log1p((-2 * log_snr).exp()))


def levels(schedule: NoiseSchedule, t: int) -> tuple[float, float]:
    return float(schedule.alpha_bar(t)), float(schedule.one_minus_alpha_bar(t))


def exact_tensors(*values: float) -> list[Tensor]:
    return [torch.tensor(value, dtype=torch.float64) for value in values]


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("name", ["UniPC", "UniPC without corrector", "DPM-Solver++"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_bh2_is_stocks_unipc_and_dpm_solver(
    prediction_type: str, name: str, order: int, *, zero_snr: bool
) -> None:
    if name == "DPM-Solver++" and order == 3:
        return  # its third order is another one
    if zero_snr and prediction_type == "epsilon":
        return
    config = {"prediction_type": prediction_type, "solver_order": order}
    config |= {"timestep_spacing": "trailing", "rescale_betas_zero_snr": zero_snr}
    for K in (1, 2, 3, 4, 10):
        if name == "DPM-Solver++":
            stock = diffusers.DPMSolverMultistepScheduler(**config)
        else:
            without = range(K) if name.endswith("without corrector") else ()
            stock = diffusers.UniPCMultistepScheduler(**config, disable_corrector=list(without))
        check_against_stock(stock, K, order=order, corrector=name == "UniPC", kind="bh2")


@pytest.mark.parametrize("order", [1, 2, 3])
def test_bh1_is_stocks_until_its_last_step_which_is_not_finite(order: int) -> None:
    stock = diffusers.UniPCMultistepScheduler(solver_order=order, solver_type="bh1")
    states = check_against_stock(stock, 8, 7, order=order, corrector=True, kind="bh1")
    assert not states[-1].isfinite().all()


def check_against_stock(
    stock: diffusers.SchedulerMixin, K: int, last: int | None = None, **options: object
) -> list[Tensor]:
    """Walk both down the same chain of K steps and compare the states up to the last."""
    stock.set_timesteps(K)
    # Of its steps alone: stock takes zero SNR for 2^-24, which is above its neighbours'.
    schedule = NoiseSchedule(stock.alphas_cumprod[stock.timesteps.flip(0)].double().log())
    network = lambda x, t: torch.tanh(1.3 * x + 0.001 * t)  # noqa: E731

    def denoise(x: Tensor, k: int) -> Tensor:
        signal, noise = (level**0.5 for level in levels(schedule, k))
        output = network(x, int(stock.timesteps[K - 1 - k]))
        return {
            "epsilon": (x - noise * output) / signal,
            "sample": output,
            "v_prediction": signal * x - noise * output,
        }[stock.config.prediction_type]

    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    chain = range(K - 1, -1, -1)
    mine = walk(multistep_moves(schedule, chain, **options), denoise, chain, x)
    theirs = [x]
    for t in stock.timesteps:
        x = stock.step(network(x, int(t)), t, x).prev_sample
        theirs.append(x)
    for k in range(1, K + 1 if last is None else last + 1):
        assert_close(mine[k], theirs[k], rtol=1e-5, atol=1e-5)
    return theirs


@pytest.mark.parametrize("eta", [0.0, 1e-170, 0.3, 1.0])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("order", "corrector", "kind"), OPTIONS)
def test_images_of_one_point_keep_their_distribution(
    schedule: NoiseSchedule, order: int, corrector: bool, kind: str, eta: float
) -> None:
    """Where x_0 is known, x_s is N(alpha_s x_0, sigma_s^2) if x_t was, at any share of noise."""
    if kind == "bh1" and corrector and schedule.alpha_bar(99) == 0:
        return
    chain = [99, 70, 50, 20, 5, 0]
    moves = multistep_moves(schedule, chain, order=order, corrector=corrector, kind=kind, eta=eta)
    for move, t, s in zip(moves, chain, [*chain[1:], -1], strict=True):
        (signal_t, noise_t), (signal_s, noise_s) = levels(schedule, t), levels(schedule, s)
        mean = move.from_x_t * signal_t**0.5 + sum(move.from_x_0)
        assert_close(float(mean), signal_s**0.5, rtol=1e-12, atol=1e-12)
        var = move.from_x_t**2 * noise_t + move.noise**2
        assert_close(float(var), noise_s, rtol=1e-12, atol=1e-12)
        assert (move.noise > 0) == (eta**2 > 0 and s >= 0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_first_order_with_all_noise_is_a_step_of_ddpm(schedule: NoiseSchedule) -> None:
    chain = [99, 60, 30, 4]
    moves = multistep_moves(schedule, chain, order=1, corrector=False, eta=1)
    t, s = torch.tensor(chain), torch.tensor([*chain[1:], -1])
    x_t, x_0 = torch.randn(2, 4, dtype=torch.float64)
    expected = posterior(schedule, x_0, x_t, t, s)
    for i, move in enumerate(moves):
        mean = move.from_x_t * x_t[i] + move.from_x_0[0] * x_0[i]
        assert_close(mean, expected.mean[i], rtol=1e-10, atol=1e-12)
        if s[i] >= 0:
            assert_close(2 * move.noise.log(), expected.log_var[i], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("tau", [0.4, 1.0])
def test_with_noise_bh1_is_stocks_sa_solver_until_its_last_step(order: int, tau: float) -> None:
    stock = diffusers.SASolverScheduler(
        predictor_order=order,
        corrector_order=order + 1,
        prediction_type="sample",
        tau_func=lambda _: tau,
    )
    stock.set_timesteps(8)
    schedule = NoiseSchedule(stock.alphas_cumprod[stock.timesteps.flip(0)].double().log())
    moves = multistep_moves(schedule, range(7, -1, -1), order=order, kind="bh1", eta=tau)
    own, its = (torch.Generator().manual_seed(5) for _ in range(2))
    mine = theirs = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    found: list[Tensor] = []
    for move, t in list(zip(moves, stock.timesteps, strict=True))[:-1]:
        output = torch.tanh(1.3 * theirs + 0.001 * t)
        theirs = stock.step(output, t, theirs, generator=its).prev_sample
        found.insert(0, torch.tanh(1.3 * mine + 0.001 * t))
        terms = zip(move.from_x_0, found, strict=False)
        mine = move.from_x_t * mine + sum(weight * x_0_hat for weight, x_0_hat in terms)
        mine = mine + move.noise * torch.randn(mine.shape, generator=own, dtype=mine.dtype)
        assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("order", "corrector", "expected"),
    [(1, False, 1), (1, True, 2), (2, False, 2), (2, True, 3), (3, True, 4)],
)
@pytest.mark.parametrize("kind", ["bh1", "bh2"])
def test_order_of_convergence_on_gaussian_data(
    order: int, corrector: bool, expected: int, kind: str
) -> None:
    schedule, var = even_schedule(), 0.6

    def denoise(x: Tensor, t: int) -> Tensor:
        signal, noise = levels(schedule, t)
        return x * signal**0.5 * var / (signal * var + noise)

    def spread(t: int) -> float:
        signal, noise = levels(schedule, t)
        return (signal * var + noise) ** 0.5

    # The flow scales a state as the standard deviation of the marginals.
    T = len(schedule)
    exact = denoise(torch.tensor(spread(0) / spread(T - 1), dtype=torch.float64), 0)
    errors = []
    for K in (48, 96, 192):
        timesteps = range(T - 1, -1, -(T - 1) // K)
        moves = multistep_moves(schedule, timesteps, order=order, corrector=corrector, kind=kind)
        *_, x = walk(moves, denoise, timesteps, torch.tensor(1.0, dtype=torch.float64))
        errors.append(abs(float(x - exact)))
    rates = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    # Beyond order 2 the first step, which is of order 1, has a part in the error.
    assert min(rates) > expected - (0.1 if order < 3 else 0.3), errors


@pytest.mark.parametrize(("order", "corrector", "expected"), [(1, False, 1), (2, True, 2)])
def test_with_noise_the_spread_of_gaussian_data_converges(
    order: int, corrector: bool, expected: int
) -> None:
    """The state is linear in the noise of the start and of every step: its variance is exact."""
    schedule, var = even_schedule(), 0.6
    T = len(schedule)
    first, noise = levels(schedule, T - 1)
    errors = []
    for K in (48, 96, 192):
        timesteps = list(range(T - 1, -1, -(T - 1) // K))
        moves = multistep_moves(schedule, timesteps, order=order, corrector=corrector, eta=0.7)
        x = torch.zeros(len(timesteps) + 1, dtype=torch.float64)  # weights of each noise
        x[-1] = (first * var + noise) ** 0.5
        found: list[Tensor] = []
        for i, (move, t) in enumerate(zip(moves[:-1], timesteps, strict=False)):
            signal, noise_t = levels(schedule, t)
            found.insert(0, x * signal**0.5 * var / (signal * var + noise_t))
            terms = zip(move.from_x_0, found, strict=False)
            x = move.from_x_t * x + sum(weight * x_0_hat for weight, x_0_hat in terms)
            x[i] = move.noise
        signal, noise_t = levels(schedule, timesteps[-1])
        errors.append(abs(float(x.square().sum()) - (signal * var + noise_t)))
    rates = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert min(rates) > expected - 0.15, errors


def test_order_of_convergence_on_a_mixture_beside_a_fine_reference() -> None:
    schedule, data = even_schedule(), mixture(std=0.4)

    def denoise(x: Tensor, t: int) -> Tensor:
        return data.posterior_moments(x, *exact_tensors(*levels(schedule, t)))[0]

    def slope(log_snr: float, y: list[float]) -> Tensor:
        """Of y = x/sigma: dy/dlambda = e^lambda x_0."""
        signal = 1 / (1 + math.exp(-2 * log_snr))
        x = torch.as_tensor(y, dtype=torch.float64) * (1 - signal) ** 0.5
        return math.exp(log_snr) * data.posterior_moments(x, *exact_tensors(signal, 1 - signal))[0]

    x = torch.linspace(-2, 2, 5, dtype=torch.float64)
    T = len(schedule)
    start, end = (levels(schedule, t)[1] ** 0.5 for t in (T - 1, 0))
    flow = solve_ivp(slope, (-3, 4), (x / start).numpy(), method="DOP853", rtol=1e-10, atol=1e-11)
    exact = denoise(torch.from_numpy(flow.y[:, -1]) * end, 0)
    for order, corrector, expected in ((2, False, 2), (2, True, 3), (3, True, 3)):
        errors = []
        for K in (96, 192):
            timesteps = range(T - 1, -1, -(T - 1) // K)
            moves = multistep_moves(schedule, timesteps, order=order, corrector=corrector)
            errors.append((walk(moves, denoise, timesteps, x)[-1] - exact).abs().max())
        rates = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
        assert min(rates) > expected - 0.15, (order, corrector, errors)


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=12, unique=True),
    st.sampled_from(OPTIONS),
    st.sampled_from(SCHEDULES),
)
def test_a_prediction_that_never_changes_is_reached_exactly(
    timesteps: list[int], options: tuple[int, bool, str], schedule: NoiseSchedule
) -> None:
    order, corrector, kind = options
    if kind == "bh1":
        schedule = SCHEDULES[0]
    timesteps = sorted(timesteps, reverse=True)
    moves = multistep_moves(schedule, timesteps, order=order, corrector=corrector, kind=kind)
    x_0, eps = torch.randn(2, 5, dtype=torch.float64)
    start = [level**0.5 for level in levels(schedule, timesteps[0])]
    *states, image = walk(moves, lambda *_: x_0, timesteps, start[0] * x_0 + start[1] * eps)
    for t, state in zip(timesteps, states, strict=True):
        signal, noise = (level**0.5 for level in levels(schedule, t))
        assert_close(state, signal * x_0 + noise * eps, rtol=1e-9, atol=1e-9)
    assert_close(image, x_0, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_weights_are_the_integrals_of_lagranges_polynomials(eta: float) -> None:
    schedule, timesteps = NoiseSchedule.linear(100), [99, 98, 60, 20, 18]
    move = multistep_moves(schedule, timesteps, order=3, corrector=False, eta=eta)[3 - 1]
    nodes = [float(schedule.snr(t).log() / 2) for t in (60, 98, 99)]
    end = float(schedule.snr(20).log() / 2)
    for k, weight in enumerate(move.from_x_0):

        def integrand(u: float, k: int = k) -> float:
            others = [node for j, node in enumerate(nodes) if j != k]
            rate = 1 + eta**2
            kernel = rate * math.exp(rate * (u - end))
            return kernel * math.prod((u - o) / (nodes[k] - o) for o in others)

        exact = quad(integrand, nodes[0], end, epsrel=1e-13)[0]
        assert_close(
            float(weight), float(schedule.alpha_bar(20).sqrt()) * exact, rtol=1e-11, atol=0
        )


def test_weights_are_continuous_where_the_recurrence_takes_over_from_the_series() -> None:
    gaps = torch.tensor([1 - 1e-9, 1 + 1e-9], dtype=torch.float64)
    found = []
    for gap in gaps.tolist():
        log_snr = torch.tensor([3.0, 3 - gap, 2 - 2 * gap, 0.5 - 2 * gap], dtype=torch.float64)
        schedule = NoiseSchedule(-torch.log1p((-2 * log_snr).exp()))
        found.append(multistep_moves(schedule, [3, 2, 1, 0], order=3)[2])
    assert_close(*(torch.stack(move.from_x_0) for move in found), rtol=1e-7, atol=1e-7)


def test_many_chains_have_the_weights_that_each_has_alone() -> None:
    schedule = NoiseSchedule.cosine(50).zero_terminal_snr()
    chains = torch.tensor([[49, 30, 20, 1], [49, 48, 47, 46], [20, 15, 10, 0]])
    together = multistep_moves(schedule, chains, order=3)
    for row, chain in enumerate(chains):
        for many, one in zip(together, multistep_moves(schedule, chain, order=3), strict=True):
            assert_close(many.from_x_t[row], one.from_x_t)
            assert_close([weight[row] for weight in many.from_x_0], list(one.from_x_0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 4}, "order must be an integer from 1 to 3, got 4"),
        ({"order": 0}, "order must be an integer from 1 to 3, got 0"),
        ({"kind": "bh3"}, "kind must be one of bh1, bh2, got 'bh3'"),
        ({"kind": "bh1"}, "kind must be 'bh2' for a chain that starts at zero SNR, got 'bh1'"),
        ({"timesteps": [3, 7]}, "timesteps must be in descending order"),
    ],
)
def test_what_is_not_allowed_is_refused(arguments: dict, message: str) -> None:
    schedule = NoiseSchedule.cosine(50).zero_terminal_snr()
    with pytest.raises(ValueError, match=message):
        multistep_moves(schedule, **{"timesteps": [49, 20, 0], **arguments})
