"""How good a model's images are: features, distances, precision and recall, in one table."""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.evaluation.class_frequencies import (
        check_classes_of_conditions,
        classes_as_often,
        classes_of_images,
    )
    from ddpm_pipeline.evaluation.config import EvaluateConfig
    from ddpm_pipeline.evaluation.copying import CopyTest, NearestPairs, copy_test
    from ddpm_pipeline.evaluation.features import FeatureExtractor, load_features
    from ddpm_pipeline.evaluation.metrics import Moments, check_count, frechet_distance, kid
    from ddpm_pipeline.evaluation.nearest import copy_test_of_features
    from ddpm_pipeline.evaluation.report import EvaluationReport
    from ddpm_pipeline.evaluation.saved_model import evaluate
    from ddpm_pipeline.evaluation.small_features import SmallFeatures, SmallFeaturesConfig
    from ddpm_pipeline.evaluation.statistics import (
        ImageStatistics,
        reference_statistics,
        sample_statistics,
    )

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "class_frequencies": "check_classes_of_conditions classes_as_often classes_of_images",
        "config": "EvaluateConfig",
        "copying": "CopyTest NearestPairs copy_test",
        "features": "FeatureExtractor load_features",
        "metrics": "Moments check_count frechet_distance kid",
        "nearest": "copy_test_of_features",
        "report": "EvaluationReport",
        "saved_model": "evaluate",
        "small_features": "SmallFeatures SmallFeaturesConfig",
        "statistics": "ImageStatistics reference_statistics sample_statistics",
    },
)
