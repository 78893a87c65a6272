r"""``DDPMScheduler``: diffusers' scheduler interface around the exact process.

.. math::
    x_s = \mu_\theta(x_t, t) + \sigma_{s|t}\, z, \qquad z \sim \mathcal N(0, I)
    \text{ for } s \ge 0,\quad z = 0 \text{ for } s = -1

It takes diffusers' config keys and gives its results; the formulas are all in ``diffusion``:
``reverse_process`` and ``ddim`` for the steps, ``spacing`` for the timesteps. What diffusers
cannot express travels in a private config key, which it keeps (``calibrated``), so that a saved
scheduler opens, samples and is saved again anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from torch import Tensor

from ddpm_pipeline.diffusion import (
    LEARNED_VARIANCES,
    BasisGaussian,
    Gaussian,
    NoiseSchedule,
    ReverseMove,
    ReverseProcess,
    check_chain,
    check_prediction_type,
    reverse_log_var,
    reverse_x_0,
    split_output,
)
from ddpm_pipeline.schedulers.calibration import needed_calibration
from ddpm_pipeline.schedulers.chain import Chain, check_timestep, moves
from ddpm_pipeline.schedulers.choices import CALIBRATED_VARIANCES
from ddpm_pipeline.schedulers.config import (
    UNCOMMON_SCHEDULES,
    build_schedule,
    check_scheduler_options,
    default_config,
    keys_at_default,
)
from ddpm_pipeline.schedulers.drawing import Generators, StepOutput, at_least_float32
from ddpm_pipeline.schedulers.drawn import DrawnChain
from ddpm_pipeline.schedulers.multistep import History, WalkedChain
from ddpm_pipeline.schedulers.noising import NoisingScheduler
from ddpm_pipeline.schedulers.optimal import timesteps_of
from ddpm_pipeline.schedulers.spectral_solver import walked_chain

__all__ = ["DDPMScheduler"]


class DDPMScheduler(NoisingScheduler):
    r"""Drop-in for ``diffusers.DDPMScheduler``, exact in float64 and free of its defects.

    Arguments:
        num_train_timesteps: T, at least 1.
        beta_start, beta_end: Range of beta for linear, scaled_linear and sigmoid, in (0, 1].
        beta_schedule: linear, scaled_linear, squaredcos_cap_v2, sigmoid or laplace.
        trained_betas: The T betas themselves, each in (0, 1], instead of a named schedule.
        variance_type: fixed_small (the posterior's), fixed_large (beta), their ``_log`` names,
            learned, learned_range, or from a calibration analytic or, with one variance for each
            frequency, spectral.
        clip_sample: Clip the predicted x_0 to +- clip_sample_range.
        prediction_type: epsilon, sample or v_prediction.
        thresholding, dynamic_thresholding_ratio, sample_max_value: Dynamic thresholding of the
            predicted x_0 (Saharia et al. 2022, arXiv:2205.11487), instead of clipping.
        clip_sample_range: Where clip_sample clips, above 0.
        timestep_spacing: leading, trailing, linspace or quadratic, see ``spacing``; or, from a
            calibration, optimal (for likelihood) or optimal_samples, see ``optimal``.
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
        schedule = build_schedule(
            num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas
        )
        self.schedule = schedule.zero_terminal_snr() if rescale_betas_zero_snr else schedule
        check_scheduler_options(self.config)
        check_prediction_type(self.schedule, prediction_type)
        self.variance_type = variance_type
        self.timestep_spacing = timestep_spacing
        self._register_config(schedule)
        self._set_attributes_of_stock()
        self._use_chain(range(num_train_timesteps - 1, -1, -1))

    def _register_config(self, schedule: NoiseSchedule) -> None:
        """Put the config into the form that any scheduler can read and JSON can hold."""
        betas = self.config.trained_betas
        if isinstance(betas, Tensor):
            self.register_to_config(trained_betas=betas.tolist())
        elif betas is None and self.config.beta_schedule in UNCOMMON_SCHEDULES:
            self.register_to_config(trained_betas=schedule.betas.tolist())
        if "_use_default_values" in self.config:  # diffusers sets it unless all keys are given
            not_given = keys_at_default(self.config, default_config(type(self)))
            self.register_to_config(_use_default_values=not_given)
        self._register_extras()

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
        if timesteps is not None:
            chain = check_chain(timesteps, len(self))
        else:
            chain = timesteps_of(
                self.calibration,
                self.schedule,
                num_inference_steps,
                self.timestep_spacing,
                self.variance_type,
                steps_offset=self.config.steps_offset,
                solver=self.solver,
            ).tolist()
        self._use_chain(chain, device)
        self.custom_timesteps = timesteps is not None
        self.num_inference_steps = len(chain)

    def _use_chain(self, chain: Sequence[int], device: str | torch.device | None = None) -> None:
        steps, chain = torch.tensor(chain).to(device), Chain(chain, len(self))
        self._change(timesteps=steps, _chain=chain, _chosen_timesteps=steps)

    def _tabulate(self) -> None:
        """Make the solver's steps now, so that none waits; those of other eta when asked for."""
        self._history: History | None = None
        self._walked: WalkedChain | None = None
        self._drawn: DrawnChain | None = None
        if self.solver.is_multistep:
            if self.solver.name != "spectral" or self.calibration is not None:
                self._walked_chain()
        elif not self.uses_calibration or self.calibration is not None:
            self._drawn_chain().table(self._own_eta)

    def _walked_chain(self) -> WalkedChain:
        if self._walked is None:
            own = self.schedule, self.config.prediction_type, self._chain.timesteps, self.solver
            self._walked = walked_chain(*own, self.calibration)
        return self._walked

    def _drawn_chain(self) -> DrawnChain:
        if self._drawn is None:
            self._drawn = DrawnChain(
                self._process(self.variance_type),
                self._chain,
                last_noise_levels=self.last_noise_levels,
                spectral=self._spectral_calibration(),
            )
        return self._drawn

    def _process(self, variance_type: str) -> ReverseProcess:
        if variance_type in CALIBRATED_VARIANCES:
            needed_calibration(self.calibration, f"variance_type {variance_type!r}")
            variance_type = "analytic"  # which is the mean of the spectral one
        return ReverseProcess(
            self.schedule,
            self.config.prediction_type,
            variance_type,
            x_0_variance=self.x_0_variance,
            decoder_variance=self.decoder_variance,
        )

    def previous_timestep(self, timestep: int | Tensor) -> int | Tensor:
        """Give the timestep that a step from ``timestep`` lands on, -1 for clean data.

        A timestep that the chain leaves out lands on the next lower one that it holds.
        """
        check_timestep(timestep, len(self))
        landing = self._chain.landing
        if not isinstance(timestep, Tensor):
            return int(landing[timestep])
        landing = landing.to(timestep.device)
        return landing.index_select(0, timestep.reshape(-1)).reshape(timestep.shape)

    def reverse(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        *,
        eta: float | None = None,
    ) -> Gaussian | BasisGaussian:
        """Give p(x_s | x_t) on the current chain: what ``step`` samples from.

        Arguments:
            model_output: Output of the network, (B, C, *) or, for learned variances, (B, 2C, *).
            timestep: t, an int or int64 tensor of shape () or (B,).
            sample: x_t, shape (B, C, *).
            eta: As in ``step``; with solver "multistep", whose steps are no distribution, it must
                be given.
        Returns:
            Gaussian with mean (B, C, *), clipped or thresholded as configured; in a basis if it
            is spectral. Its log_var is that of ``reverse`` or ``ddim``, at s = -1 with the
            analytic variance ``decoder_variance``. ``step`` departs from it in two places: it
            adds no noise at s = -1, and caps the last noise of calibrated variances.
        Raises:
            ValueError: If the channels or the timestep are not allowed, or the solver has no
                p(x_s | x_t).
        """
        if eta is None and self.solver.is_multistep:
            name = self.solver.name
            raise ValueError(f"solver must be 'ddpm' or 'ddim' for reverse(), got {name!r}")
        eta = self._own_eta if eta is None else eta
        x_t = at_least_float32(sample)
        drawn = self._drawn_chain()
        step = drawn.step(timestep, x_t, eta)
        x_0_hat, log_var_output = self._predict(step.move, model_output, x_t)
        return drawn.distribution(
            step, timestep, x_0_hat, x_t, log_var_output=log_var_output, eta=eta
        )

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        generator: Generators = None,
        return_dict: bool = True,
        *,
        eta: float | None = None,
    ) -> DDPMSchedulerOutput | tuple[Tensor, Tensor]:
        """Take the solver's step to x_s, without any device synchronisation.

        Steps of "multistep" build on one another, down ``timesteps`` and for one batch at a time;
        a step that is not the next one, or of another shape, begins anew. On a device that is
        seen of elements of ``timesteps``. Any other t is read there, for which the host waits,
        where a walk begins; all that follow are taken for the next, and ``set_timesteps`` ends it.

        Arguments:
            model_output: Output of the network, (B, C, *) or, for learned variances, (B, 2C, *).
            timestep: t, an int or int64 tensor of shape () or (B,).
            sample: x_t, shape (B, C, *).
            generator: Source of the noise, or a list of B of them, one for each example.
            return_dict: Whether to return an object rather than a tuple.
            eta: Draw a step of DDIM, whatever the solver: its noise has eta times the standard
                deviation of the forward posterior, and what x_t leaves open about x_0 is added if
                the variance is a calibrated one. Any other type makes no difference to it.
        Returns:
            ``prev_sample`` x_s and ``pred_original_sample`` (the predicted x_0), in the dtype of
            ``sample``. On clean data, s = -1, x_s is the mean and nothing is drawn.
        Raises:
            ValueError: If the channels, the timestep or eta are not allowed.
        Source: Ho et al. 2020, algorithm 2; Song et al. 2020 (arXiv:2010.02502), eq. 12; Zhao et
            al. 2023 (arXiv:2302.04867).
        """
        x_t = at_least_float32(sample)
        if eta is None and self.solver.is_multistep:
            walked = self._walked or self._walked_chain()
            history = walked.goes_on(timestep, x_t, self._history, self._chosen_timesteps)
            x_0_hat, _ = self._predict(walked.move(history), model_output, x_t)
            x_s, self._history = walked.step(history, x_0_hat, x_t, generator)
        else:
            eta = self._own_eta if eta is None else eta
            x_s, x_0_hat = self._draw(model_output, timestep, x_t, generator, eta)
        if x_s.dtype != sample.dtype:
            x_s, x_0_hat = x_s.to(sample.dtype), x_0_hat.to(sample.dtype)
        if not return_dict:
            return x_s, x_0_hat
        return StepOutput(x_s, x_0_hat)

    def _draw(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        x_t: Tensor,
        generator: Generators,
        eta: float | None,
    ) -> tuple[Tensor, Tensor]:
        """Draw x_s by DDPM or DDIM, and give the predicted x_0 with it."""
        drawn = self._drawn or self._drawn_chain()
        step = drawn.step(timestep, x_t, eta)
        x_0_hat, log_var_output = self._predict(step.move, model_output, x_t)
        x_s = drawn.draw(
            step, timestep, x_0_hat, x_t, generator, log_var_output=log_var_output, eta=eta
        )
        return x_s, x_0_hat

    def _predict(
        self, move: ReverseMove, model_output: Tensor, x_t: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Give the predicted x_0, clipped or thresholded, and the network's variance output."""
        output, log_var_output = split_output(model_output, x_t, self.variance_type)
        return self._constrain(reverse_x_0(move, output, x_t)), log_var_output

    def _constrain(self, x_0_hat: Tensor) -> Tensor:
        config = self.config
        if config.thresholding:
            return self._threshold_sample(x_0_hat)
        if config.clip_sample:
            return x_0_hat.clamp_(-config.clip_sample_range, config.clip_sample_range)
        return x_0_hat

    def _get_variance(
        self,
        t: int | Tensor,
        predicted_variance: Tensor | None = None,
        variance_type: str | None = None,
    ) -> Tensor:
        """Give the variance (never its root or logarithm) of the step from t; 0 on clean data."""
        check_timestep(t, len(self))
        t, variance_type = torch.as_tensor(t), variance_type or self.variance_type
        if variance_type in LEARNED_VARIANCES and predicted_variance is None:
            raise ValueError(f"predicted_variance must be given for {variance_type!r}, got None")
        move = moves(self._process(variance_type), self._chain, t)
        log_var = reverse_log_var(move, predicted_variance, variance_type)
        return torch.where(self.previous_timestep(t) >= 0, log_var.exp(), 0.0)
