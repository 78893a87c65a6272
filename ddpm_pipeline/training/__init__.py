"""From a folder of images to a saved model.

``train`` makes a ``Trainer``, which is the course of a run. Its ``Learner`` makes one update after
another, its ``Monitor`` measures and shows, and its ``RunSaver`` saves what a run that was killed
goes on from (``storage``).
"""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.training.config import PRESETS, TrainingConfig, as_given
    from ddpm_pipeline.training.given import check_typed, giving_way, idle_options
    from ddpm_pipeline.training.lengths import gamma_of
    from ddpm_pipeline.training.paths import (
        check_sources,
        check_splits,
        check_start,
        has_checkpoint,
    )
    from ddpm_pipeline.training.run import dry_run, train
    from ddpm_pipeline.training.storage.export import (
        CheckpointModel,
        export_checkpoint,
        open_checkpoint,
    )
    from ddpm_pipeline.training.storage.post_hoc import (
        AveragedModel,
        averaged_model,
        save_average,
    )
    from ddpm_pipeline.training.trainer import TrainingResult
    from ddpm_pipeline.training.unfinished import (
        check_has_checkpoint,
        check_has_snapshots,
        has_checkpoints_only,
    )

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "config": "PRESETS TrainingConfig as_given",
        "given": "check_typed giving_way idle_options",
        "lengths": "gamma_of",
        "paths": "check_sources check_splits check_start has_checkpoint",
        "run": "dry_run train",
        "storage.export": "CheckpointModel export_checkpoint open_checkpoint",
        "storage.post_hoc": "AveragedModel averaged_model save_average",
        "trainer": "TrainingResult",
        "unfinished": "check_has_checkpoint check_has_snapshots has_checkpoints_only",
    },
)
