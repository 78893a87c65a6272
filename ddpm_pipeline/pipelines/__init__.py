"""From noise to images: the pipeline that drops into diffusers, and sampling at any scale."""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.pipelines.conditions import given_condition
    from ddpm_pipeline.pipelines.config import SampleConfig, SamplingOptions
    from ddpm_pipeline.pipelines.fitting import check_network
    from ddpm_pipeline.pipelines.grids import draw_grid
    from ddpm_pipeline.pipelines.manifest import (
        SAMPLES_MANIFEST,
        check_not_foreign,
        npz_manifest,
    )
    from ddpm_pipeline.pipelines.model_folder import load_checked_unet
    from ddpm_pipeline.pipelines.pipeline import DDPMPipeline
    from ddpm_pipeline.pipelines.sampling import ImageSampler, load_image_sampler, sample_images
    from ddpm_pipeline.pipelines.saved_options import (
        check_saved_classes,
        check_saved_condition,
        check_saved_steps,
    )
    from ddpm_pipeline.pipelines.tasks.conditioned import PosteriorMethod
    from ddpm_pipeline.pipelines.tasks.edit_options import EditConfig
    from ddpm_pipeline.pipelines.tasks.editing import edit_images
    from ddpm_pipeline.pipelines.tasks.given import fitted, given_images, image_size, unit_images
    from ddpm_pipeline.pipelines.tasks.interpolation import shares_of_way, spherical
    from ddpm_pipeline.pipelines.tasks.operators import OPERATORS, LinearOperator, named_operator

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "conditions": "given_condition",
        "config": "SampleConfig SamplingOptions",
        "fitting": "check_network",
        "grids": "draw_grid",
        "manifest": "SAMPLES_MANIFEST check_not_foreign npz_manifest",
        "model_folder": "load_checked_unet",
        "pipeline": "DDPMPipeline",
        "sampling": "ImageSampler load_image_sampler sample_images",
        "saved_options": "check_saved_classes check_saved_condition check_saved_steps",
        "tasks.conditioned": "PosteriorMethod",
        "tasks.edit_options": "EditConfig",
        "tasks.editing": "edit_images",
        "tasks.given": "fitted given_images image_size unit_images",
        "tasks.interpolation": "shares_of_way spherical",
        "tasks.operators": "OPERATORS LinearOperator named_operator",
    },
)
