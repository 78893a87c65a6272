"""What a scheduler carries beside stock's options: our own values, a solver, a calibration.

    scheduler.set_calibration(calibration)                      for its variance and its spacings
    analytic = scheduler.with_calibration(calibration)          a new one that samples with it
    scheduler.set_solver("multistep", order=3)                  how its steps are taken
    DDPMScheduler.from_config(stock.config)                     all comes back, through stock too

They travel in a private key of the config (``config``), which stock diffusers keeps and ignores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Self

import diffusers
from torch import Tensor, nn

from ddpm_pipeline.common import PRIVATE_KEY, as_resolution, check_weights
from ddpm_pipeline.diffusion import (
    ErrorSpectrum,
    NoiseSchedule,
    check_reference_side,
    log_snr_shift,
)
from ddpm_pipeline.schedulers.calibration import Calibration, needed_calibration
from ddpm_pipeline.schedulers.choices import CALIBRATED_SPACINGS, CALIBRATED_VARIANCES, Solver
from ddpm_pipeline.schedulers.config import (
    STOCK_OPTIONS,
    default_config,
    private_config,
    restored_config,
)
from ddpm_pipeline.schedulers.optimal import timesteps_of
from ddpm_pipeline.schedulers.spectral import needed_spectrum, variance_spectrum

__all__ = ["CalibratedScheduler"]


class CalibratedScheduler(diffusers.DDPMScheduler):
    """The part of ``DDPMScheduler`` that keeps a solver and a calibration; it draws nothing.

    Where it does not say otherwise a method is diffusers'.
    """

    schedule: NoiseSchedule
    variance_type: str
    timestep_spacing: str
    solver: Solver = Solver()
    calibration: Calibration | None = None
    last_noise_levels: float = 2.0

    @classmethod
    def from_config(
        cls,
        config: dict[str, Any] | None = None,
        return_unused_kwargs: bool = False,
        *,
        solver: str | Solver | None = None,
        **kwargs: object,
    ) -> Self | tuple[Self, dict[str, Any]]:
        """Do as in diffusers; also restore what is our own and read the keys of diffusers 0.1.

        ``solver`` is as for ``set_solver``; None keeps that of the config, and its name keeps its
        options.
        """
        private: dict[str, Any] = {}
        if isinstance(config, dict):
            config, private = restored_config(config, kwargs, default_config(cls))
        scheduler, unused = super().from_config(config, return_unused_kwargs=True, **kwargs)
        if "solver" in private:
            saved = Solver.from_dict(private["solver"])
            solver = saved.asked(saved.name if solver is None else solver)
        if solver is not None:
            scheduler.set_solver(solver)
        if "calibration" in private:
            values = dict(private["calibration"])  # the config goes on to hold them
            levels = _number_of_levels(values.pop("last_noise_levels", None))
            scheduler.set_calibration(Calibration.from_dict(values), last_noise_levels=levels)
        return (scheduler, unused) if return_unused_kwargs else scheduler

    def set_solver(self, solver: str | Solver, **options: object) -> None:
        """Choose how ``step`` takes its steps; saved with the scheduler, where stock ignores it.

        Arguments:
            solver: "ddpm", "ddim", "multistep" or "spectral", or a ``Solver``.
            options: Of multistep: order, corrector, kind and eta, as in ``Solver``; of spectral:
                order. Those of a ``Solver`` that are not given stay.
        Raises:
            ValueError: If a value is not allowed, the order is above the length of the chain, or
                "spectral" is asked for beside a calibration without a spectrum.
        """
        self._change(solver=Solver.of(solver, **options))
        self._register_extras()

    def set_calibration(
        self, calibration: Calibration | None, *, last_noise_levels: float = 2.0
    ) -> None:
        """Take the analytic variance and the optimal spacings from a calibration.

        It is saved with the scheduler, where stock diffusers ignores it and keeps it.

        Arguments:
            calibration: From ``calibrate``; None forgets the one there is, as is right before
                the weights are trained further.
            last_noise_levels: The last noise drawn with the analytic variance changes a value by
                no more than this many of 256 levels on average, above 0, unless the forward
                process itself has more; the paper uses 1 or 2.
        Raises:
            ValueError: If it was made for another T or noise schedule, or lacks the spectrum that
                the variance type or the solver needs.
        Source: Bao et al. 2022 (arXiv:2201.06503), section 3.3 for the last noise.
        """
        if not last_noise_levels > 0:
            raise ValueError(f"last_noise_levels must be above 0, got {last_noise_levels}")
        if calibration is not None:
            calibration.check_schedule(self.schedule)
        self._change(calibration=calibration, last_noise_levels=last_noise_levels)
        self._register_extras()

    def with_calibration(
        self, calibration: Calibration, *, last_noise_levels: float = 2.0, **options: object
    ) -> Self:
        """Make a new scheduler with the analytic variance of a calibration.

        Arguments:
            calibration, last_noise_levels: As for ``set_calibration``.
            options: Config keys to change as well, such as timestep_spacing; variance_type is
                analytic unless it is among them.
        Raises:
            ValueError: As ``set_calibration``, or if an option is not allowed.
        """
        # Without the calibration of before, which an option may not fit.
        private = {k: v for k, v in self.config.get(PRIVATE_KEY, {}).items() if k != "calibration"}
        config = {**self.config, PRIVATE_KEY: private}
        scheduler = self.from_config(config, **{"variance_type": "analytic", **options})
        scheduler.set_calibration(calibration, last_noise_levels=last_noise_levels)
        return scheduler

    def for_resolution(self, resolution: int | Sequence[int], reference_side: float) -> Self:
        """Make a new scheduler whose log SNR is shifted by the size of the images.

        The shifted betas are saved as ``trained_betas``, which stock diffusers takes too.

        Arguments:
            resolution: Of the images, a side or (height, width).
            reference_side: Of the images that the noise schedule suits as it is, above 0; as far
                as float32, in which stock keeps it, tells alpha_bar_0 from 0 and 1.
        Raises:
            ValueError: If a side is not allowed, or there is a calibration, which is of the
                noise levels of before.
        Source: Hoogeboom et al. 2023 (arXiv:2301.11093), section 3.1.
        """
        resolution = as_resolution(resolution)
        check_reference_side(self.schedule, resolution, reference_side)
        shift = log_snr_shift(resolution, reference_side)
        return self.from_config(
            self.config, trained_betas=self.schedule.shifted(shift).betas.tolist()
        )

    @property
    def uses_calibration(self) -> bool:
        """Whether the variance type is one that a calibration gives."""
        return self.variance_type in CALIBRATED_VARIANCES

    @property
    def x_0_variance(self) -> Tensor | None:
        """v_t = E Var(x_0 | x_t) per dimension, float64, shape (T,); None if not calibrated."""
        return None if self.calibration is None else self.calibration.x_0_variance

    @property
    def has_spectrum(self) -> bool:
        """Whether there is a calibration with a spectrum."""
        return self.calibration is not None and self.calibration.spectrum is not None

    @property
    def x_0_spectrum(self) -> ErrorSpectrum | None:
        """What v_t is the mean of, over frequencies; None if that was not measured."""
        return variance_spectrum(self.calibration, self.schedule) if self.has_spectrum else None

    @property
    def decoder_variance(self) -> Tensor | None:
        """Of the analytic move to the data, float64, shape (T,); None if not calibrated.

        It is v_t if the calibration was made for a continuous decoder.
        """
        return None if self.calibration is None else self.calibration.decoder_variance

    def calibrated_timesteps(self, K: int, solver: str | Solver | None = None) -> list[int]:
        """Give the K timesteps that are best for images drawn by a solver, its own by default.

        Arguments:
            K: 1 <= K <= T.
            solver: As for ``set_solver``; DDPM and DDIM have the same steps.
        Raises:
            ValueError: If a value is not allowed, or what was measured does not tell the steps.
        """
        solver = self.solver if solver is None else self.solver.asked(solver)
        args = (self.calibration, self.schedule, K, "optimal_samples", self.variance_type)
        return timesteps_of(*args, solver=solver).tolist()

    def check_weights(self, network: nn.Module) -> None:
        """Refuse a network if the options use a calibration that was made for other weights.

        Arguments:
            network: That will be sampled from.
        Raises:
            ValueError: If its weights are others.
        """
        is_used = (
            self.uses_calibration
            or self.timestep_spacing in CALIBRATED_SPACINGS
            or self.solver.name == "spectral"
        )
        if self.calibration is not None and is_used:
            check_weights(self.calibration.weights, network)

    def check_steps(self, shape: tuple[int, ...], *, eta: float | None = None) -> None:
        """Refuse to take steps without the calibration that they need, or of other images.

        Arguments:
            shape: Of an image, (C, *).
            eta: As for ``step``.
        Raises:
            ValueError: If there is none, or its spectrum is that of images of another shape.
        """
        option, is_spectral = f"variance_type {self.variance_type!r}", False
        if eta is None and self.solver.is_multistep:
            option, is_spectral = "solver 'spectral'", self.solver.name == "spectral"
        elif self.uses_calibration:
            needed_calibration(self.calibration, option)
            is_spectral = self.variance_type == "spectral"
        if is_spectral:
            spectrum = needed_spectrum(self.calibration, option).spectrum
            spectrum.check_shape(shape)

    def __repr__(self) -> str:
        """Show the config without what is our own, and the options that are in force."""
        shown = {key: value for key, value in self.config.items() if key != PRIVATE_KEY}
        return (
            f"{type(self).__name__} {json.dumps(shown, indent=2, default=repr)}\n"
            f"variance_type={self.variance_type!r}, timestep_spacing={self.timestep_spacing!r}, "
            f"solver={self.solver!r}, calibration={self.calibration!r}"
        )

    def _register_extras(self) -> None:
        """Put what stock diffusers cannot express into the private key, its nearest beside it."""
        entry = None
        if self.calibration is not None:
            entry = {
                "last_noise_levels": self.last_noise_levels,
                **self.calibration.to_dict(),
            }
        options = {key: getattr(self, key) for key in STOCK_OPTIONS}
        solver = None if self.solver == Solver() else self.solver.to_dict()
        public, private = private_config(options, calibration=entry, solver=solver)
        if private or PRIVATE_KEY in self.config:
            self.register_to_config(**public, **{PRIVATE_KEY: private})

    @property
    def _own_eta(self) -> float | None:
        """The eta of the solver's own steps, None for DDPM's."""
        return 0.0 if self.solver.name == "ddim" else None

    def _spectral_calibration(self) -> Calibration | None:
        """Give the calibration whose spectrum spreads the variances; None if none does.

        Raises:
            ValueError: If the variances are spectral, and there is no spectrum.
        """
        if self.variance_type != "spectral":
            return None
        return needed_spectrum(self.calibration, "variance_type 'spectral'")

    def _change(self, **attributes: object) -> None:
        """Set attributes and the tables that follow from them; all, or none where that fails."""
        before = vars(self).copy()
        vars(self).update(attributes)
        try:
            self._tabulate()
        except BaseException:
            self.__dict__ = before
            raise

    def _tabulate(self) -> None:
        """Make the tables that follow from the solver and the calibration anew."""
        raise NotImplementedError


def _number_of_levels(levels: object) -> float:
    """Give last_noise_levels of a config back.

    Raises:
        ValueError: If it is no number.
    """
    if isinstance(levels, bool) or not isinstance(levels, int | float):
        raise ValueError(f"last_noise_levels must be a number above 0, got {levels!r}")
    return levels
