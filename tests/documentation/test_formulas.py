"""docs/formulas.md stays true: its links, names and tests exist, and its derivations hold.

The derivations are checked by oracles that share nothing with the package: densities of
torch.distributions built from raw betas, numerical integration, mpmath and scipy's optimiser.
"""

from __future__ import annotations

import ast
import importlib
import math
import re
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import kstest
from torch.distributions import Normal

from ddpm_pipeline import Gaussian, NoiseSchedule, marginal, posterior, reverse
from ddpm_pipeline.diffusion.forward_process import posterior_variance
from ddpm_pipeline.diffusion.predictions import convert
from ddpm_pipeline.diffusion.reverse_process import analytic_variance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Move = tuple[int, int, int | None]
    Network = Callable[[Tensor, int], list[Tensor]]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "formulas.md").read_text(encoding="utf-8")
ANCHORS = """
    forward-step reparameterisation closed-form moment-generating-functions reverse-process elbo
    variational-bound three-parts-of-the-bound forward-posterior posterior-mean-from-the-noise
    kl-divergence-of-two-gaussians noise-prediction prediction-types reverse-variances
    discretised-decoder units hybrid-loss timestep-samplers analytic-reverse-variance
    spectral-variance shortest-path steps-of-high-order spectral-steps
    steps-for-solvers-of-high-order zero-terminal-snr
    rate-and-distortion
"""
SECTIONS = ANCHORS.split()

BETAS = [0.1, 0.3, 0.6]
CHAINS = [[2, 1, 0], [2, 0], [2], [1, 0]]
PAIRS = [(1, 0), (2, 0), (2, 1)]


def slug(heading: str) -> str:
    """The anchor that GitHub and MyST give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def sections() -> dict[str, str]:
    """Text of each section of the page by its anchor."""
    parts = re.split(r"^#+ (.+)$", PAGE, flags=re.MULTILINE)
    anchors = [slug(heading) for heading in parts[1::2]]
    assert len(anchors) == len(set(anchors))
    return dict(zip(anchors, parts[2::2], strict=True))


def formulas() -> list[str]:
    """Every displayed and inline formula of the page."""
    prose = re.sub(r"`[^`\n]*`", "", PAGE)
    found = re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", prose, flags=re.DOTALL)
    assert "$" not in re.sub(r"\$\$.+?\$\$|\$[^$\n]+\$", "", prose, flags=re.DOTALL)
    return [display or inline for display, inline in found]


@cache
def functions_of(path: str) -> set[str]:
    """Names of the functions at the top of a file, without importing it."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_named_function_exists_and_its_link_leads_to_its_file() -> None:
    links = re.findall(r"\[`(ddpm_pipeline[\w.]+)`\]\(\.\./([^)]+)\)", PAGE)
    assert len(links) == len(re.findall(r"`ddpm_pipeline\.", PAGE))
    for name, file in links:
        module = file.removesuffix(".py").replace("/", ".")
        assert name.startswith(f"{module}."), name
        attrgetter(name.removeprefix(f"{module}."))(importlib.import_module(module))


def test_every_method_of_the_symbol_table_exists() -> None:
    methods = set(re.findall(r"`schedule\.(\w+)", PAGE))
    assert len(methods) > 5
    assert [name for name in methods if not hasattr(NoiseSchedule, name)] == []


def test_every_named_test_exists() -> None:
    links = re.findall(r"\[`(tests/[\w/]+\.py)::(\w+)`\]\(\.\./([^)]+)\)", PAGE)
    assert len(links) == PAGE.count("::test_")
    for file, name, target in links:
        assert target == file
        assert name in functions_of(file), f"{file}::{name}"


def test_every_link_within_the_repository_leads_somewhere() -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"\$[^$\n]+\$", "", PAGE))
    anchors = [target[1:] for target in targets if target.startswith("#")]
    assert [anchor for anchor in anchors if anchor not in sections()] == []
    files = [target for target in targets if not target.startswith(("#", "https://"))]
    assert [file for file in files if not (ROOT / "docs" / file).is_file()] == []


def test_sections_keep_their_anchors_and_order() -> None:
    assert [anchor for anchor in sections() if anchor in SECTIONS] == SECTIONS
    for row, anchor in enumerate(SECTIONS[:12], start=1):
        assert sections()[anchor].lstrip().startswith(f"*Row {row} of the notes.*")


@pytest.mark.parametrize("anchor", SECTIONS)
def test_every_section_names_its_function_and_its_test(anchor: str) -> None:
    code, tests = sections()[anchor].partition("- **Checked by.**")[::2]
    assert "ddpm_pipeline." in code.partition("- **In code.**")[2]
    assert "::test_" in tests


def test_formulas_keep_to_what_github_renders() -> None:
    """GitHub reads Markdown inside formulas: no escapes, emphasis, HTML or links may arise."""
    forbidden = r"\\[^a-zA-Z]|[<>*|]|(?<![a-zA-Z0-9])_|\]\(|\\operatorname"
    assert [formula for formula in formulas() if re.search(forbidden, formula)] == []
    assert [f for f in formulas() if f.count("{") != f.count("}")] == []


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def small_schedule() -> NoiseSchedule:
    return NoiseSchedule.from_betas(BETAS)


def kept(t: int, s: int) -> float:
    """Share of the variance that BETAS keep from s to t."""
    return math.prod(1 - beta for beta in BETAS[s + 1 : t + 1])


def forward(x_s: Tensor, t: int, s: int) -> Normal:
    """q(x_t | x_s) of BETAS."""
    return Normal(math.sqrt(kept(t, s)) * x_s, math.sqrt(1 - kept(t, s)))


@cache
def hermite(n: int = 48) -> tuple[Tensor, Tensor]:
    """Nodes and weights that average functions of a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


def moves(chain: Sequence[int]) -> list[Move]:
    """(t, s, the step above t) of a chain, noisiest first."""
    return list(zip(chain, [*chain[1:], -1], [None, *chain[:-1]], strict=True))


def toy(x_t: Tensor, t: int) -> list[Tensor]:
    """A nonlinear noise predictor with an output for the variance."""
    return [0.6 * x_t + 0.3 * torch.sin(x_t + t), 0.4 * torch.cos(x_t) - 1]


def exact(x_t: Tensor, t: int) -> list[Tensor]:
    """The exact noise predictor for standard normal data."""
    return [math.sqrt(1 - kept(t, -1)) * x_t]


def reverse_step(network: Network, x_t: Tensor, move: Move, variance_type: str) -> Gaussian:
    """p(x_s | x_t) in one dimension, x_t of shape (N,)."""
    t, s, above = move
    output = torch.stack(network(x_t, t)[: 1 + ("learned" in variance_type)], dim=1)
    options = {"variance_type": variance_type, "above": above}
    p = reverse(small_schedule(), output, x_t[:, None], t, s, **options)
    return Gaussian(p.mean[:, 0], p.log_var.reshape(-1))


def generating_function(u: mpmath.mpf, mean: float, variance: float) -> mpmath.mpf:
    return mpmath.exp(mean * u + variance * u**2 / 2)


def log_decoder(p: Gaussian, x_0: Tensor, decoder: str) -> Tensor:
    return p.log_prob(x_0) if decoder == "continuous" else p.discretized_log_prob(x_0)


def bound_from_joint_densities(
    network: Network, x_0: Tensor, chain: list[int], variance: str, decoder: str
) -> Tensor:
    """E_q[-log p(x_{0:K}) / q(x_{1:K} | x_0)], integrated over all K noises at once."""
    nodes, weights = hermite()
    noises = torch.cartesian_prod(*[nodes] * len(chain)).reshape(-1, len(chain))
    weight = torch.cartesian_prod(*[weights] * len(chain)).reshape(-1, len(chain)).prod(dim=1)
    x_s, log_ratio = x_0.expand(len(weight)), torch.zeros_like(weight)
    for noise, move in zip(noises.T, reversed(moves(chain)), strict=True):
        t, s, _ = move
        q = forward(x_s, t, s)
        x_t = q.mean + q.stddev * noise
        p = reverse_step(network, x_t, move, variance)
        log_p = p.log_prob(x_s) if s >= 0 else log_decoder(p, x_0, decoder)
        log_ratio = log_ratio + q.log_prob(x_t) - log_p
        x_s = x_t
    return (weight * (log_ratio - Normal(0.0, 1.0).log_prob(x_s))).sum()


def bound_in_parts(
    network: Network, x_0: Tensor, chain: list[int], variance: str, decoder: str
) -> list[Tensor]:
    """The prior, each transition and the decoder, by the package's own distributions."""
    nodes, weights = hermite()
    schedule, x_0 = small_schedule(), x_0.expand(len(nodes))
    prior = marginal(schedule, x_0, chain[0]).kl(Gaussian(tensor(0), tensor(0)))
    parts = [prior[0]]
    for move in moves(chain):
        t, s, _ = move
        x_t = marginal(schedule, x_0, t).reparameterize(nodes)
        p = reverse_step(network, x_t, move, variance)
        if s >= 0:
            parts.append(weights @ posterior(schedule, x_0, x_t, t, s).kl(p))
        else:
            parts.append(-weights @ log_decoder(p, x_0, decoder))
    return parts


def test_forward_steps_one_by_one_reach_the_marginal() -> None:
    grid = torch.linspace(-9, 9, 801, dtype=torch.float64)
    x_0 = tensor(0.7)
    density = forward(x_0, 0, -1).log_prob(grid).exp()
    for t in (1, 2):
        step = forward(grid[:, None], t, t - 1).log_prob(grid).exp()
        density = torch.trapezoid(density[:, None] * step, grid, dim=0)
        expected = marginal(small_schedule(), x_0, t).log_prob(grid).exp()
        torch.testing.assert_close(expected, density, rtol=0, atol=1e-12)


@pytest.mark.parametrize("exponent", [1, 2, 0.3])
def test_noise_variance_is_what_merging_step_by_step_gives(exponent: float) -> None:
    betas, noise, merged = np.linspace(0.01, 0.5, 1000) ** (2 * exponent), mpmath.mpf(0), []
    with mpmath.workdps(40):
        for beta in map(mpmath.mpf, betas.tolist()):
            noise = (1 - beta) * noise + beta
            merged.append(float(noise))
    actual = NoiseSchedule.from_betas(betas).one_minus_alpha_bar(torch.arange(1000))
    torch.testing.assert_close(actual, tensor(*merged), rtol=1e-13, atol=0)


@pytest.mark.parametrize(("mean", "variance"), [(0, 1), (0.7, 0.25), (-1.3, 2)])
@pytest.mark.parametrize("u", [-1.5, 0.0, 0.4, 2.0])
def test_generating_function_of_a_gaussian_integrates_to_its_closed_form(
    mean: float, variance: float, u: float
) -> None:
    gaussian = Gaussian(tensor(mean), tensor(variance).log())
    integrand = lambda x: math.exp(u * x + gaussian.log_prob(tensor(x)).item())  # noqa: E731
    centre, reach = mean + variance * u, 12 * math.sqrt(variance)
    integral, _ = quad(integrand, centre - reach, centre + reach, epsabs=0, epsrel=1e-12)
    assert integral == pytest.approx(float(generating_function(u, mean, variance)), rel=1e-11)


def test_moments_of_a_sampled_sum_are_those_of_the_product_of_generating_functions() -> None:
    n, parameters = 200_000, [(0.7, 0.25), (-0.3, 1.5)]
    total = torch.zeros(n, dtype=torch.float64)
    for mean, variance in parameters:
        total += Gaussian(tensor(mean).expand(n), tensor(variance).log()).sample()

    def product(u: mpmath.mpf) -> mpmath.mpf:
        return mpmath.fprod(generating_function(u, *pair) for pair in parameters)

    for order in range(1, 5):
        powers, predicted = total**order, float(mpmath.diff(product, 0, order))
        assert abs(powers.mean() - predicted) < 4 * powers.std() / math.sqrt(n)
    mean, variance = (sum(column) for column in zip(*parameters, strict=True))
    standard = (total - mean) / math.sqrt(variance)  # SciPy 1.18 takes no mean and deviation here
    assert kstest(standard.numpy(), "norm").pvalue > 1e-3


def test_evidence_is_elbo_plus_divergence_from_the_true_posterior() -> None:
    """One latent z, a nonlinear likelihood, and a q that is not the posterior."""
    z = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    x = tensor(0.8)
    q, prior = Gaussian(tensor(0.4), tensor(0.3).log()), Gaussian(tensor(0), tensor(0))
    log_likelihood = Gaussian(torch.sin(z) + z / 2, tensor(0.5).log()).log_prob(x)
    log_joint = Normal(0.0, 1.0).log_prob(z) + log_likelihood
    log_evidence = torch.trapezoid(log_joint.exp(), z).log()
    log_q = Normal(tensor(0.4), tensor(0.3).sqrt()).log_prob(z)
    divergence = torch.trapezoid(log_q.exp() * (log_q - (log_joint - log_evidence)), z)
    elbo = torch.trapezoid(q.log_prob(z).exp() * log_likelihood, z) - q.kl(prior)[0]
    assert divergence > 0.05
    torch.testing.assert_close(elbo + divergence, log_evidence, rtol=0, atol=1e-12)


@pytest.mark.parametrize("decoder", ["continuous", "discretized"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range", "learned"])
@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_bound_of_a_small_chain_is_the_sum_of_its_three_parts(
    chain: list[int], variance: str, decoder: str
) -> None:
    x_0 = tensor(0.2)[0]
    direct = bound_from_joint_densities(toy, x_0, chain, variance, decoder)
    parts = bound_in_parts(toy, x_0, chain, variance, decoder)
    assert all(part >= 0 for part in parts[:-1])
    torch.testing.assert_close(sum(parts), direct, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_bound_of_a_small_chain_lies_above_its_negative_log_likelihood(
    chain: list[int], variance: str
) -> None:
    grid = torch.linspace(-10, 10, 1601, dtype=torch.float64)
    density = Normal(0.0, 1.0).log_prob(grid).exp()
    for move in moves(chain):
        p = reverse_step(toy, grid, move, variance)
        kernel = Gaussian(p.mean[:, None], p.log_var.reshape(-1, 1)).log_prob(grid).exp()
        density = torch.trapezoid(density[:, None] * kernel, grid, dim=0)
    torch.testing.assert_close(torch.trapezoid(density, grid), tensor(1)[0])
    for i in (650, 800, 900):
        bound = sum(bound_in_parts(toy, grid[i], chain, variance, "continuous"))
        assert bound > -density[i].log() + 1e-3


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_bound_of_an_exact_model_is_its_negative_log_likelihood(chain: list[int]) -> None:
    for x_0 in tensor(-1.2, 0, 0.4):
        bound = sum(bound_in_parts(exact, x_0, chain, "fixed_large", "continuous"))
        torch.testing.assert_close(bound, -Normal(0.0, 1.0).log_prob(x_0))


@pytest.mark.parametrize(("t", "s"), PAIRS)
def test_posterior_is_bayes_rule_on_a_grid(t: int, s: int) -> None:
    grid = torch.linspace(-9, 9, 3601, dtype=torch.float64)
    x_0, x_t = tensor(0.7), tensor(-0.4)
    joint = (forward(x_0, s, -1).log_prob(grid) + forward(grid, t, s).log_prob(x_t)).exp()
    expected = joint / torch.trapezoid(joint, grid)
    actual = posterior(small_schedule(), x_0, x_t, t, s).log_prob(grid).exp()
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize(("t", "s"), PAIRS)
def test_transition_is_weighted_noise_error_plus_a_constant(t: int, s: int, variance: str) -> None:
    schedule = small_schedule()
    x_0, eps = torch.randn(2, 6, 1, dtype=torch.float64)
    eps_hat = eps + torch.linspace(-2, 2, 6, dtype=torch.float64)[:, None]
    x_t = marginal(schedule, x_0, t).reparameterize(eps)
    q = posterior(schedule, x_0, x_t, t, s)
    terms = q.kl(reverse(schedule, eps_hat, x_t, t, s, variance_type=variance))
    constant = q.kl(reverse(schedule, eps, x_t, t, s, variance_type=variance))

    alpha, bar_t, bar_s = kept(t, s), kept(t, -1), kept(s, -1)
    small = (1 - alpha) * (1 - bar_s) / (1 - bar_t)
    sigma2 = {"fixed_small": small, "fixed_large": 1 - alpha}[variance]
    weight = (1 - alpha) ** 2 / (2 * sigma2 * alpha * (1 - bar_t))
    c = (small / sigma2 - 1 + math.log(sigma2 / small)) / 2
    torch.testing.assert_close(constant, torch.full_like(constant, c), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(terms - constant, weight * (eps - eps_hat).square())


@pytest.mark.parametrize(("t", "s"), PAIRS)
def test_transition_is_the_gain_in_snr_times_the_squared_error_of_x_0(t: int, s: int) -> None:
    schedule = small_schedule()
    x_0, x_0_hat, x_t = torch.randn(3, 6, 1, dtype=torch.float64)
    p = reverse(schedule, x_0_hat, x_t, t, s, prediction_type="sample")
    terms = posterior(schedule, x_0, x_t, t, s).kl(p)
    snr_t, snr_s = (kept(i, -1) / (1 - kept(i, -1)) for i in (t, s))
    torch.testing.assert_close(terms, (snr_s - snr_t) / 2 * (x_0 - x_0_hat).square())


def test_bin_mass_is_density_times_bin_width() -> None:
    gaussian, x = (
        Gaussian(tensor(0.1), tensor(0.3).log()),
        torch.linspace(-1, 1, 256)[1:-1].double(),
    )
    difference = gaussian.discretized_log_prob(x) - gaussian.log_prob(x)
    torch.testing.assert_close(
        difference, torch.full_like(x, math.log(2 / 255)), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("error", [0.01, 0.3])
@pytest.mark.parametrize(("t", "s"), PAIRS)
def test_analytic_variance_minimises_the_expected_transition(t: int, s: int, error: float) -> None:
    schedule, nodes, weights = small_schedule(), *hermite()
    x_0, x_t = math.sqrt(error) * nodes[:, None], torch.full_like(nodes, 0.5)[:, None]
    q = posterior(schedule, x_0, x_t, t, s)
    p = reverse(schedule, torch.zeros_like(x_t), x_t, t, s, prediction_type="sample")

    def expected_transition(log_var: float) -> float:
        return (weights @ q.kl(Gaussian(p.mean, tensor(log_var)))).item()

    best = minimize_scalar(expected_transition, bracket=(-4, 0), tol=1e-10).x
    analytic = analytic_variance(schedule, t, s, tensor(error)).log().item()
    assert analytic == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("points", [[-1, 1], [0.3], [-1, -0.9, 0.2, 1]], ids=str)
def test_best_variance_of_data_in_the_unit_interval_lies_between_the_fixed_ones(
    points: list[float],
) -> None:
    """Also that the error of the exact noise prediction is 1 minus its mean square."""
    schedule, data = NoiseSchedule.linear(60, 1e-3, 0.2), tensor(*points)
    nodes = torch.linspace(-10, 10, 2001, dtype=torch.float64)
    weights = Normal(0.0, 1.0).log_prob(nodes).exp() / 100
    for t in range(1, 60, 7):
        bar, noise = schedule.alpha_bar(t), schedule.one_minus_alpha_bar(t)
        x_t = bar.sqrt() * data[:, None] + noise.sqrt() * nodes
        logits = Normal(bar.sqrt() * data, noise.sqrt()).log_prob(x_t[..., None])
        x_0_hat = logits.softmax(dim=-1) @ data
        error = ((x_0_hat - data[:, None]).square() @ weights).mean()
        eps_hat = convert(schedule, x_0_hat, x_t, t, from_type="sample", to_type="epsilon")
        moment = (eps_hat.square() @ weights).mean()
        torch.testing.assert_close(noise / bar * (1 - moment), error, rtol=1e-9, atol=1e-9)
        for s in (0, t // 2, t - 1):
            best = analytic_variance(schedule, t, s, error)
            assert posterior_variance(schedule, t, s) * (1 - 1e-9) <= best
            assert best <= schedule.beta(t, s) * (1 + 1e-9)


@pytest.mark.parametrize("chain", [[39, 30, 17, 9, 3, 0], [39, 5], [39]], ids=str)
def test_exact_gaussian_chain_is_tight_and_on_shannons_curve(chain: list[int]) -> None:
    """With the analytic variance every spacing of Gaussian data spends only the entropy."""
    variance, schedule, (nodes, weights) = 0.25, NoiseSchedule.linear(40, 1e-3, 0.3), hermite(8)
    x_0, eps = torch.cartesian_prod(nodes, nodes)[:, :, None].unbind(1)
    x_0, weight = math.sqrt(variance) * x_0, torch.outer(weights, weights).flatten()
    bar = schedule.alpha_bar(chain[0])
    top = Gaussian(tensor(0), (bar * variance + 1 - bar).log())
    rate = weight @ marginal(schedule, x_0, chain[0]).kl(top)
    for t, s, _ in moves(chain):
        bar = schedule.alpha_bar(t)
        gain = variance * bar.sqrt() / (variance * bar + 1 - bar)
        left = variance * (1 - gain * bar.sqrt())
        x_t = marginal(schedule, x_0, t).reparameterize(eps)
        torch.testing.assert_close(weight @ (x_0 - gain * x_t).square(), left.reshape(1))
        torch.testing.assert_close(rate, torch.log1p(variance * schedule.snr(t)).reshape(1) / 2)
        torch.testing.assert_close(rate, (variance / left).log().reshape(1) / 2)
        options = {"variance_type": "analytic", "x_0_variance": left, "prediction_type": "sample"}
        p = reverse(schedule, gain * x_t, x_t, t, s, **options)
        if s >= 0:
            rate = rate + weight @ posterior(schedule, x_0, x_t, t, s).kl(p)
    entropy = Normal(tensor(0), tensor(variance).sqrt()).entropy()
    torch.testing.assert_close(rate - weight @ p.log_prob(x_0), entropy)
