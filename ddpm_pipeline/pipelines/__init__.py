"""From noise to images: the pipeline that drops into diffusers, and sampling at any scale."""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.pipelines.config import SampleConfig, SamplingOptions
    from ddpm_pipeline.pipelines.pipeline import DDPMPipeline
    from ddpm_pipeline.pipelines.sampling import ImageSampler, load_image_sampler, sample_images
    from ddpm_pipeline.pipelines.writing import MANIFEST_NAME, npz_manifest

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "config": ["SampleConfig", "SamplingOptions"],
        "pipeline": ["DDPMPipeline"],
        "sampling": ["ImageSampler", "load_image_sampler", "sample_images"],
        "writing": ["MANIFEST_NAME", "npz_manifest"],
    },
)
