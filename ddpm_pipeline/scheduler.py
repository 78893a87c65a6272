r"""``DDPMScheduler``: diffusers' scheduler interface around the exact process.

.. math::
    x_s = \mu_\theta(x_t, t) + \sigma_{s|t}\, z, \qquad z \sim \mathcal N(0, I)
    \text{ for } s \ge 0,\quad z = 0 \text{ for } s = -1

It takes diffusers' config keys and gives its results; the formulas are all in ``process``. What
diffusers cannot express (the option values of STOCK_OPTIONS) travels in the private config key
``_ddpm_pipeline``, which stock diffusers keeps and ignores, with the nearest stock value in the
public key: a saved scheduler opens, samples and is saved again anywhere.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ddpm_pipeline.gaussian import Gaussian
from ddpm_pipeline.process import (
    VARIANCE_TYPES,
    ReverseMove,
    add_scaled_,
    broadcast,
    check_prediction_type,
    marginal,
    model_target,
    reverse_coefficients,
    reverse_log_var,
    reverse_mean,
    reverse_x_0,
    split_output,
)
from ddpm_pipeline.schedule import NoiseSchedule
from ddpm_pipeline.spacing import SPACINGS, check_chain, spaced_timesteps

__all__ = ["PRIVATE_KEY", "STOCK_OPTIONS", "DDPMScheduler"]

PRIVATE_KEY = "_ddpm_pipeline"

# Option values that stock diffusers does not know, and the nearest that it does.
STOCK_OPTIONS = {
    "variance_type": {"analytic": "fixed_small"},
    "timestep_spacing": {"quadratic": "trailing", "optimal": "trailing"},
}

# Config keys of diffusers 0.1, and what they are called now.
_LEGACY_KEYS = {"timesteps": "num_train_timesteps", "clip_predicted_image": "clip_sample"}


class _StepOutput(DDPMSchedulerOutput):
    """diffusers' output without its generic constructor, which would cost a tenth of a step."""

    def __init__(self, prev_sample: Tensor, pred_original_sample: Tensor) -> None:
        values = {"prev_sample": prev_sample, "pred_original_sample": pred_original_sample}
        OrderedDict.__init__(self, values)
        self.__dict__.update(values)


class _Step(NamedTuple):
    """A reverse move ready for use: floats, or tensors that broadcast against the sample."""

    move: ReverseMove
    std: float | Tensor  # of the fixed variance types; 0 on clean data
    has_noise: float | Tensor | bool


class DDPMScheduler(diffusers.DDPMScheduler):
    r"""Drop-in for ``diffusers.DDPMScheduler``, exact in float64 and free of its defects.

    Arguments:
        num_train_timesteps: T, at least 1.
        beta_start, beta_end: Range of beta for linear, scaled_linear and sigmoid, in (0, 1].
        beta_schedule: linear, scaled_linear, squaredcos_cap_v2, sigmoid or laplace.
        trained_betas: The T betas themselves, each in (0, 1], instead of a named schedule.
        variance_type: fixed_small (the posterior's), fixed_large (beta), their ``_log`` names,
            learned, learned_range, or analytic.
        clip_sample: Clip the predicted x_0 to +- clip_sample_range.
        prediction_type: epsilon, sample or v_prediction.
        thresholding, dynamic_thresholding_ratio, sample_max_value: Dynamic thresholding of the
            predicted x_0 (Saharia et al. 2022, arXiv:2205.11487), instead of clipping.
        clip_sample_range: Where clip_sample clips, above 0.
        timestep_spacing: leading, trailing, linspace or quadratic; see ``spacing``.
        steps_offset: Added to every timestep of leading, at least 0.
        rescale_betas_zero_snr: Shift the schedule to zero terminal SNR.
    Raises:
        ValueError: If an argument is not allowed; the message names it, its value and what is.
    Source: Ho et al. 2020 (arXiv:2006.11239), algorithm 2.
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None,
        variance_type: str = "fixed_small",
        clip_sample: bool = True,
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "leading",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        # Not super().__init__(): that would build the float32 tables and register twice.
        self.schedule = _build_schedule(
            num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas
        )
        if rescale_betas_zero_snr:
            self.schedule = self.schedule.zero_terminal_snr()
        _check_options(self.config)
        check_prediction_type(self.schedule, prediction_type)
        self.variance_type = variance_type
        self.timestep_spacing = timestep_spacing
        self._register_extras()

        every_t = torch.arange(num_train_timesteps)
        self.betas = self.schedule.betas
        self.alphas = self.schedule.alpha(every_t)
        self.alphas_cumprod = self.schedule.alpha_bar(every_t)
        self.one = torch.ones((), dtype=torch.float64)
        self.init_noise_sigma = 1.0
        self.custom_timesteps = False
        self.num_inference_steps: int | None = None
        self._use_chain(range(num_train_timesteps - 1, -1, -1))

    def _register_extras(self) -> None:
        """Put what stock diffusers cannot express into the private key, its nearest beside it."""
        options = {}
        for key, nearest in STOCK_OPTIONS.items():
            value = getattr(self, key)
            if value in nearest:
                options[key] = {"value": value, "stock": nearest[value]}
        stock = {key: option["stock"] for key, option in options.items()}
        extras = {PRIVATE_KEY: {"options": options}} if options else {}
        self.register_to_config(**stock, **extras)

    @classmethod
    def from_config(
        cls,
        config: dict[str, Any] | None = None,
        return_unused_kwargs: bool = False,
        **kwargs: object,
    ) -> DDPMScheduler | tuple[DDPMScheduler, dict[str, Any]]:
        """As in diffusers; also restores our own options and reads the keys of diffusers 0.1."""
        if isinstance(config, dict):
            config = _restored_config(config, kwargs)
        return super().from_config(config, return_unused_kwargs, **kwargs)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[int] | None = None,
    ) -> None:
        """Choose the chain that ``step`` walks down.

        Arguments:
            num_inference_steps: K, 1 <= K <= T, spaced by ``timestep_spacing``.
            device: Where ``timesteps`` is put; None leaves it on the CPU.
            timesteps: The chain itself, strictly decreasing in [0, T-1], instead of K.
        Raises:
            ValueError: If both or neither are given, or they are not allowed.
        """
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError(
                "pass exactly one of num_inference_steps and timesteps, got "
                f"num_inference_steps={num_inference_steps} and timesteps={timesteps}"
            )
        self.custom_timesteps = timesteps is not None
        if timesteps is not None:
            chain = check_chain(timesteps, len(self))
        else:
            chain = self._spaced(num_inference_steps)
        self.num_inference_steps = len(chain)
        self._use_chain(chain, device)

    def _spaced(self, K: int) -> Sequence[int]:
        offset = self.config.steps_offset
        return spaced_timesteps(len(self), K, self.timestep_spacing, steps_offset=offset).tolist()

    def _use_chain(self, chain: Sequence[int], device: str | torch.device | None = None) -> None:
        self.timesteps = torch.tensor(chain).to(device)
        descending = torch.tensor(chain)
        ascending, every_t = descending.flip(0), torch.arange(len(self))
        below = torch.searchsorted(ascending, every_t)
        beyond = torch.tensor([len(self)])
        # Where each t lands, and where it comes from, also for a t that the chain leaves out.
        self._landing = torch.cat([torch.tensor([-1]), ascending])[below]
        above = torch.searchsorted(ascending, every_t, right=True)
        self._above = torch.cat([ascending, beyond])[above]
        self._tabulate()

    def _tabulate(self) -> None:
        """Every step of the chain, once, so that ``step`` only looks one up."""
        move = reverse_coefficients(
            self.schedule,
            torch.arange(len(self)),
            self._landing,
            prediction_type=self.config.prediction_type,
            variance_type=self.variance_type,
            above=self._above,
        )
        has_noise = self._landing >= 0
        std = has_noise * (0.5 * move.log_var).exp()
        moves = map(ReverseMove, *(column.tolist() for column in move))
        self._steps = list(map(_Step, moves, std.tolist(), has_noise.tolist()))
        self._columns = torch.stack([*move, std, has_noise.to(std)], dim=1)
        self._device_columns: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def previous_timestep(self, timestep: int | Tensor) -> int | Tensor:
        """The timestep that a step from ``timestep`` lands on, -1 for clean data.

        A timestep that the chain leaves out lands on the next lower one that it holds.
        """
        if isinstance(timestep, Tensor):
            landing = self._landing.to(timestep.device)
            return landing.index_select(0, timestep.reshape(-1)).reshape(timestep.shape)
        return int(self._landing[self._checked(timestep)])

    def _checked(self, t: int) -> int:
        if not 0 <= t < len(self):
            raise ValueError(f"timestep must lie in [0, {len(self) - 1}], got {t}")
        return t

    def _host_step(self, t: int) -> _Step:
        steps = self._steps
        return steps[t] if 0 <= t < len(steps) else steps[self._checked(t)]

    def _device_step(self, t: Tensor, sample: Tensor) -> _Step:
        """The step for timesteps that are on a device or differ between examples."""
        key = (sample.device, sample.dtype)
        if key not in self._device_columns:
            self._device_columns[key] = self._columns.to(sample.dtype).to(sample.device)
        try:
            rows = self._device_columns[key].index_select(0, t.to(sample.device).reshape(-1))
        except IndexError:
            raise ValueError(f"timesteps must lie in [0, {len(self) - 1}], got {t}") from None
        columns = [broadcast(column, sample) for column in rows.unbind(1)]
        return _Step(ReverseMove(*columns[:-2]), *columns[-2:])

    def _step(self, timestep: int | Tensor, sample: Tensor) -> _Step:
        if not isinstance(timestep, Tensor):
            return self._host_step(int(timestep))
        if timestep.ndim == 0 and timestep.device.type == "cpu":
            return self._host_step(int(timestep.numpy()))  # a read of host memory, no dispatch
        return self._device_step(timestep, sample)

    def reverse(self, model_output: Tensor, timestep: int | Tensor, sample: Tensor) -> Gaussian:
        """p(x_s | x_t) on the current chain: what ``step`` samples from.

        Arguments:
            model_output: Output of the network, (B, C, *) or, for learned variances, (B, 2C, *).
            timestep: t, an int or int64 tensor of shape () or (B,).
            sample: x_t, shape (B, C, *).
        Returns:
            Gaussian with mean (B, C, *), clipped or thresholded as configured. Its log_var at
            s = -1 is the finite one of ``process.reverse``; ``step`` adds no noise there.
        Raises:
            ValueError: If the channels or the timestep are not allowed.
        """
        x_t = _at_least_float32(sample)
        move = self._step(timestep, x_t).move
        x_0_hat, log_var_output = self._predict(move, model_output, x_t)
        mean = reverse_mean(move, x_0_hat, x_t)
        log_var = reverse_log_var(move, log_var_output, self.variance_type)
        return Gaussian(mean, torch.as_tensor(log_var, dtype=mean.dtype, device=mean.device))

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> DDPMSchedulerOutput | tuple[Tensor, Tensor]:
        """Draw x_s from p(x_s | x_t), without any device synchronisation.

        Arguments:
            model_output: Output of the network, (B, C, *) or, for learned variances, (B, 2C, *).
            timestep: t, an int or int64 tensor of shape () or (B,).
            sample: x_t, shape (B, C, *).
            generator: Source of the noise, or a list of B of them, one for each example.
            return_dict: Whether to return an object rather than a tuple.
        Returns:
            ``prev_sample`` x_s and ``pred_original_sample`` (the predicted x_0), in the dtype of
            ``sample``. On clean data, s = -1, x_s is the mean and nothing is drawn.
        Raises:
            ValueError: If the channels or the timestep are not allowed.
        Source: Ho et al. 2020, algorithm 2.
        """
        x_t = _at_least_float32(sample)
        step = self._step(timestep, x_t)
        move = step.move
        x_0_hat, log_var_output = self._predict(move, model_output, x_t)
        if step.has_noise is False:
            x_s = reverse_mean(move, x_0_hat, x_t)
        else:
            # The mean is added to the scaled noise, not the reverse: one kernel less.
            x_s = _scaled_noise(x_t, self._std(step, log_var_output), generator)
            add_scaled_(x_s, move.mean_from_x_0, x_0_hat)
            add_scaled_(x_s, move.mean_from_x_t, x_t)
        if x_s.dtype != sample.dtype:
            x_s, x_0_hat = x_s.to(sample.dtype), x_0_hat.to(sample.dtype)
        if not return_dict:
            return x_s, x_0_hat
        return _StepOutput(x_s, x_0_hat)

    def _predict(
        self, move: ReverseMove, model_output: Tensor, x_t: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The predicted x_0, clipped or thresholded, and the network's variance output."""
        output, log_var_output = split_output(model_output, x_t, self.variance_type)
        return self._constrain(reverse_x_0(move, output, x_t)), log_var_output

    def _std(self, step: _Step, log_var_output: Tensor | None) -> float | Tensor:
        if log_var_output is None:
            return step.std
        log_var = reverse_log_var(step.move, log_var_output, self.variance_type)
        return step.has_noise * (0.5 * log_var).exp()

    def _constrain(self, x_0_hat: Tensor) -> Tensor:
        config = self.config
        if config.thresholding:
            return self._threshold_sample(x_0_hat)
        if config.clip_sample:
            return x_0_hat.clamp_(-config.clip_sample_range, config.clip_sample_range)
        return x_0_hat

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """A draw of q(x_t | x_0) with the given noise, in the dtype of ``original_samples``.

        Arguments:
            original_samples: x_0, shape (B, *).
            noise: Standard normal noise, shape (B, *).
            timesteps: t, int64, shape (B,) or (), in [0, T-1].
        """
        x_t = marginal(self.schedule, original_samples, timesteps).reparameterize(noise)
        return x_t.to(original_samples.dtype)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The target v of v-prediction for x_0 = ``sample``; arguments as in ``add_noise``."""
        v = model_target(self.schedule, sample, noise, timesteps, prediction_type="v_prediction")
        return v.to(sample.dtype)

    def _get_variance(
        self,
        t: int | Tensor,
        predicted_variance: Tensor | None = None,
        variance_type: str | None = None,
    ) -> Tensor:
        """The variance (never its root or logarithm) of the step from t; 0 on clean data."""
        t = torch.as_tensor(t)
        s = self.previous_timestep(t)
        variance_type = variance_type or self.variance_type
        move = reverse_coefficients(
            self.schedule,
            t,
            s,
            prediction_type=self.config.prediction_type,
            variance_type=variance_type,
            above=self._above[t],
        )
        log_var = reverse_log_var(move, predicted_variance, variance_type)
        return torch.where(s >= 0, log_var.exp(), 0.0)


def _scaled_noise(
    x: Tensor, std: float | Tensor, generator: torch.Generator | list[torch.Generator] | None
) -> Tensor:
    """Normal noise with the given standard deviation, in the shape, dtype and device of x."""
    is_simple = generator is None or getattr(generator, "device", None) == x.device
    if is_simple and not isinstance(std, Tensor):
        return x.new_empty(x.shape).normal_(0, std, generator=generator)
    return std * randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _build_schedule(
    T: int,
    beta_start: float,
    beta_end: float,
    beta_schedule: str,
    trained_betas: np.ndarray | list[float] | None,
) -> NoiseSchedule:
    if trained_betas is None:
        return NoiseSchedule.named(beta_schedule, T, beta_start, beta_end)
    if len(trained_betas) != T:
        raise ValueError(
            f"trained_betas must have num_train_timesteps = {T} entries, got {len(trained_betas)}"
        )
    return NoiseSchedule.from_betas(trained_betas)


def _check_options(config: dict[str, Any]) -> None:
    """ValueError for an option of the scheduler's config that is not allowed."""
    _check_choice(config, "variance_type", VARIANCE_TYPES)
    _check_choice(config, "prediction_type", ("epsilon", "sample", "v_prediction"))
    _check_choice(config, "timestep_spacing", SPACINGS)
    for key, is_allowed, allowed in _RANGES:
        if not is_allowed(config[key]):
            raise ValueError(f"{key} must be {allowed}, got {config[key]!r}")


_RANGES: list[tuple[str, Callable[[Any], bool], str]] = [
    ("clip_sample_range", lambda v: v > 0, "above 0"),
    ("dynamic_thresholding_ratio", lambda v: 0 <= v <= 1, "between 0 and 1"),
    ("sample_max_value", lambda v: v > 0, "above 0"),
    ("steps_offset", lambda v: isinstance(v, int) and v >= 0, "an integer of at least 0"),
]


def _check_choice(config: dict[str, Any], key: str, allowed: Sequence[str]) -> None:
    if config[key] not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(allowed)}, got {config[key]!r}")


def _restored_config(config: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The config with our own options back in place and today's names for old keys.

    An option that was changed since, in stock diffusers or by an override, stays changed.
    """
    config = dict(config)
    defaulted = config.get("_use_default_values", [])
    restored = {}
    for old, new in _LEGACY_KEYS.items():
        value = config.pop(old, None)
        if value is not None and (new not in config or new in defaulted):
            restored[new] = value
    for key, option in config.pop(PRIVATE_KEY, {}).get("options", {}).items():
        if key not in overrides and config.get(key) == option["stock"]:
            restored[key] = option["value"]
    # diffusers drops the keys that it lists as defaulted.
    config["_use_default_values"] = [key for key in defaulted if key not in restored]
    return {**config, **restored}
