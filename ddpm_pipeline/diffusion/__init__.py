"""The mathematics, which knows torch and nothing else.

Schedules, q and p, the terms of the bound, losses, spacings and costs. Every formula takes a pair
of timesteps (t, s), where s = -1 is clean data, and computes its coefficients in float64.
"""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.diffusion.bound_terms import (
        bits_per_dim,
        decoder_nats,
        prior_nats,
        transition_nats,
    )
    from ddpm_pipeline.diffusion.choices import (
        DECODERS,
        LEARNED_VARIANCES,
        MAX_ORDER,
        MAX_TIMESTEPS,
        MULTISTEP_KINDS,
        PROCESS_VARIANCES,
        SPACINGS,
        VARIANCE_TYPES,
        Decoder,
        Loss,
        LossWeighting,
        MultistepKind,
        PredictionType,
        ProcessVariance,
        TimestepSamplerName,
        VarianceType,
        check_eta,
        check_loss,
        check_num_steps,
        check_num_train_timesteps,
    )
    from ddpm_pipeline.diffusion.costs import (
        PRICED_VARIANCES,
        gaussian_rate,
        linear_error,
        lost_variance_costs,
        move_costs,
        prior_cost,
        step_costs,
        wiener_error,
    )
    from ddpm_pipeline.diffusion.dct import FrequencyBasis, dct_matrix, frequency_bands, pool
    from ddpm_pipeline.diffusion.ddim import ddim_coefficients
    from ddpm_pipeline.diffusion.decoder_costs import (
        DECODER_RATIOS,
        continuous_decoder_costs,
        decoder_costs_at,
        fit_through,
    )
    from ddpm_pipeline.diffusion.forward_process import (
        forward,
        marginal,
        posterior,
        posterior_variance,
    )
    from ddpm_pipeline.diffusion.gaussian import Gaussian
    from ddpm_pipeline.diffusion.held_costs import ComponentErrors, held_prediction_costs
    from ddpm_pipeline.diffusion.keyed_noise import keyed_normal, keyed_uniform
    from ddpm_pipeline.diffusion.levels import Levels
    from ddpm_pipeline.diffusion.losses import loss_weights, training_loss
    from ddpm_pipeline.diffusion.multistep import MultistepMove, multistep_moves
    from ddpm_pipeline.diffusion.objective import ChosenTimesteps, TrainingObjective
    from ddpm_pipeline.diffusion.predictions import (
        check_prediction_type,
        conversion_weights,
        convert,
        model_target,
        predict_x_0,
        velocity_at,
    )
    from ddpm_pipeline.diffusion.reverse_model import ReverseProcess
    from ddpm_pipeline.diffusion.reverse_process import (
        ReverseMove,
        analytic_variance,
        reverse,
        reverse_coefficients,
        reverse_log_var,
        reverse_mean,
        reverse_x_0,
        split_output,
    )
    from ddpm_pipeline.diffusion.schedule import (
        NoiseSchedule,
        check_reference_side,
        log_snr_shift,
    )
    from ddpm_pipeline.diffusion.solver_errors import (
        Components,
        best_chain,
        final_error,
        step_errors,
    )
    from ddpm_pipeline.diffusion.spacing import (
        ShortestPaths,
        check_chain,
        shortest_paths,
        spaced_timesteps,
    )
    from ddpm_pipeline.diffusion.spectral import (
        NUM_KNOTS,
        BasisGaussian,
        ErrorSpectrum,
        knots_around,
        linear_errors,
        snr_at_knots,
        spectral_move_costs,
    )
    from ddpm_pipeline.diffusion.spectral_solver import (
        SpectralStep,
        local_variances,
        spectral_step,
    )
    from ddpm_pipeline.diffusion.tensors import add_rows_, add_scaled_, broadcast, sum_elements
    from ddpm_pipeline.diffusion.timesteps import low_discrepancy_timesteps, make_timestep_sampler
    from ddpm_pipeline.diffusion.value_decoder import (
        NUM_VALUE_CLASSES,
        ValueDecoder,
        prediction_scale,
        prediction_scale_of,
        value_classes,
    )

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "bound_terms": "bits_per_dim decoder_nats prior_nats transition_nats",
        "choices": (
            "DECODERS Decoder LEARNED_VARIANCES Loss LossWeighting MAX_ORDER MAX_TIMESTEPS "
            "MULTISTEP_KINDS MultistepKind PROCESS_VARIANCES PredictionType ProcessVariance "
            "SPACINGS TimestepSamplerName VARIANCE_TYPES VarianceType check_eta check_loss "
            "check_num_steps check_num_train_timesteps"
        ),
        "costs": (
            "PRICED_VARIANCES gaussian_rate linear_error lost_variance_costs move_costs "
            "prior_cost step_costs wiener_error"
        ),
        "dct": "FrequencyBasis dct_matrix frequency_bands pool",
        "ddim": "ddim_coefficients",
        "decoder_costs": "DECODER_RATIOS continuous_decoder_costs decoder_costs_at fit_through",
        "forward_process": "forward marginal posterior posterior_variance",
        "gaussian": "Gaussian",
        "held_costs": "ComponentErrors held_prediction_costs",
        "keyed_noise": "keyed_normal keyed_uniform",
        "levels": "Levels",
        "losses": "loss_weights training_loss",
        "multistep": "MultistepMove multistep_moves",
        "objective": "ChosenTimesteps TrainingObjective",
        "predictions": (
            "check_prediction_type conversion_weights convert model_target predict_x_0 velocity_at"
        ),
        "reverse_model": "ReverseProcess",
        "reverse_process": (
            "ReverseMove analytic_variance reverse reverse_coefficients reverse_log_var "
            "reverse_mean reverse_x_0 split_output"
        ),
        "schedule": "NoiseSchedule check_reference_side log_snr_shift",
        "solver_errors": "Components best_chain final_error step_errors",
        "spacing": "ShortestPaths check_chain shortest_paths spaced_timesteps",
        "spectral": (
            "BasisGaussian ErrorSpectrum NUM_KNOTS knots_around linear_errors snr_at_knots "
            "spectral_move_costs"
        ),
        "spectral_solver": "SpectralStep local_variances spectral_step",
        "tensors": "add_rows_ add_scaled_ broadcast sum_elements",
        "timesteps": "low_discrepancy_timesteps make_timestep_sampler",
        "value_decoder": (
            "NUM_VALUE_CLASSES ValueDecoder prediction_scale prediction_scale_of value_classes"
        ),
    },
)
