"""The mathematics, which knows torch and nothing else.

Schedules, q and p, the terms of the bound, losses, spacings and costs. Every formula takes a pair of
timesteps (t, s), where s = -1 is clean data, and computes its coefficients in float64.
"""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.diffusion.bound_terms import (
        DECODERS,
        Decoder,
        ReverseProcess,
        bits_per_dim,
        decoder_nats,
        prior_nats,
        sum_elements,
        transition_nats,
    )
    from ddpm_pipeline.diffusion.costs import (
        PRICED_VARIANCES,
        linear_error,
        lost_variance_costs,
        move_costs,
        prior_cost,
        step_costs,
        wiener_error,
    )
    from ddpm_pipeline.diffusion.ddim import check_eta, ddim_coefficients
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
    from ddpm_pipeline.diffusion.keyed_noise import keyed_normal, keyed_uniform
    from ddpm_pipeline.diffusion.losses import (
        Loss,
        LossWeighting,
        check_loss,
        loss_weights,
        training_loss,
    )
    from ddpm_pipeline.diffusion.predictions import (
        PredictionType,
        check_prediction_type,
        convert,
        model_target,
        predict_x_0,
    )
    from ddpm_pipeline.diffusion.reverse_process import (
        LEARNED_VARIANCES,
        VARIANCE_TYPES,
        ReverseMove,
        VarianceType,
        analytic_variance,
        reverse,
        reverse_coefficients,
        reverse_log_var,
        reverse_mean,
        reverse_x_0,
        split_output,
        x_0_variance_of_moves,
    )
    from ddpm_pipeline.diffusion.schedule import NoiseSchedule
    from ddpm_pipeline.diffusion.spacing import (
        SPACINGS,
        ShortestPaths,
        check_chain,
        shortest_paths,
        spaced_timesteps,
    )
    from ddpm_pipeline.diffusion.tensors import add_scaled_, broadcast
    from ddpm_pipeline.diffusion.timesteps import (
        TimestepSamplerName,
        low_discrepancy_timesteps,
        make_timestep_sampler,
    )

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "bound_terms": [
            "DECODERS",
            "Decoder",
            "ReverseProcess",
            "bits_per_dim",
            "decoder_nats",
            "prior_nats",
            "sum_elements",
            "transition_nats",
        ],
        "costs": [
            "PRICED_VARIANCES",
            "linear_error",
            "lost_variance_costs",
            "move_costs",
            "prior_cost",
            "step_costs",
            "wiener_error",
        ],
        "ddim": ["check_eta", "ddim_coefficients"],
        "decoder_costs": [
            "DECODER_RATIOS",
            "continuous_decoder_costs",
            "decoder_costs_at",
            "fit_through",
        ],
        "forward_process": ["forward", "marginal", "posterior", "posterior_variance"],
        "gaussian": ["Gaussian"],
        "keyed_noise": ["keyed_normal", "keyed_uniform"],
        "losses": ["Loss", "LossWeighting", "check_loss", "loss_weights", "training_loss"],
        "predictions": [
            "PredictionType",
            "check_prediction_type",
            "convert",
            "model_target",
            "predict_x_0",
        ],
        "reverse_process": [
            "LEARNED_VARIANCES",
            "ReverseMove",
            "VARIANCE_TYPES",
            "VarianceType",
            "analytic_variance",
            "reverse",
            "reverse_coefficients",
            "reverse_log_var",
            "reverse_mean",
            "reverse_x_0",
            "split_output",
            "x_0_variance_of_moves",
        ],
        "schedule": ["NoiseSchedule"],
        "spacing": [
            "SPACINGS",
            "ShortestPaths",
            "check_chain",
            "shortest_paths",
            "spaced_timesteps",
        ],
        "tensors": ["add_scaled_", "broadcast"],
        "timesteps": ["TimestepSamplerName", "low_discrepancy_timesteps", "make_timestep_sampler"],
    },
)
