"""Images in, bytes out: folders, arrays and data sets, decoded once and cached, or streamed."""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.data.augmentation import (
        augmentation_size,
        augmented,
        draw_augmentation,
        moved_alike,
    )
    from ddpm_pipeline.data.batches import Batches, between_levels, checked_batch, split_batch
    from ddpm_pipeline.data.classes import class_counts, with_classes, without_gaps
    from ddpm_pipeline.data.conditions import DataConditions, conditioning_of, with_conditioning
    from ddpm_pipeline.data.findings import facts_of_reading, printable
    from ddpm_pipeline.data.held_out import split_validation
    from ddpm_pipeline.data.images import Batch, ImageData, open_images
    from ddpm_pipeline.data.loader import BatchSource, ImageLoader, Prefetcher
    from ddpm_pipeline.data.model_images import (
        ModelBatches,
        check_unchanged_size,
        described_changes,
        open_measured,
    )
    from ddpm_pipeline.data.options import ReadingOptions
    from ddpm_pipeline.data.pictures import (
        contact_sheet,
        image_grid,
        nearest_picture,
        reconstruction_strip,
    )
    from ddpm_pipeline.data.pixels import (
        MOST_CHANNELS,
        OUTPUTS,
        concatenated,
        flip_coins,
        mirrored,
        model_values,
        named_bands,
        random_flip,
        shown_bands,
        to_model_range,
        uint8_from_unit_range,
        unit_range,
    )
    from ddpm_pipeline.data.places import default_cache_dir
    from ddpm_pipeline.data.resident import batches_on
    from ddpm_pipeline.data.sources.first_look import check_source
    from ddpm_pipeline.data.sources.kinds import MeaninglessOptionError, data_kind
    from ddpm_pipeline.data.sources.names import source_name
    from ddpm_pipeline.data.sources.row_files import LoadedDataset, files_of_source
    from ddpm_pipeline.data.sources.shard_files import is_shards
    from ddpm_pipeline.data.sources.stacks import (
        NO_STACKS,
        STACK_PATTERN,
        StackError,
        is_stack_pattern,
        not_of_model,
    )
    from ddpm_pipeline.data.streams import ImageStream, open_stream
    from ddpm_pipeline.data.training_images import (
        TRAINING_IMAGES_NAME,
        KnownImages,
        Overlap,
        described_overlap,
        described_reference,
        training_overlap,
    )
    from ddpm_pipeline.data.value_range import with_scale

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "augmentation": "augmentation_size augmented draw_augmentation moved_alike",
        "batches": "Batches between_levels checked_batch split_batch",
        "classes": "class_counts with_classes without_gaps",
        "conditions": "DataConditions conditioning_of with_conditioning",
        "findings": "facts_of_reading printable",
        "held_out": "split_validation",
        "images": "Batch ImageData open_images",
        "loader": "BatchSource ImageLoader Prefetcher",
        "model_images": "ModelBatches check_unchanged_size described_changes open_measured",
        "options": "ReadingOptions",
        "pictures": "contact_sheet image_grid nearest_picture reconstruction_strip",
        "pixels": (
            "MOST_CHANNELS OUTPUTS concatenated flip_coins mirrored model_values named_bands "
            "random_flip shown_bands to_model_range uint8_from_unit_range unit_range"
        ),
        "places": "default_cache_dir",
        "resident": "batches_on",
        "sources.first_look": "check_source",
        "sources.kinds": "MeaninglessOptionError data_kind",
        "sources.names": "source_name",
        "sources.row_files": "LoadedDataset files_of_source",
        "sources.shard_files": "is_shards",
        "sources.stacks": "NO_STACKS STACK_PATTERN StackError is_stack_pattern not_of_model",
        "streams": "ImageStream open_stream",
        "value_range": "with_scale",
        "training_images": (
            "TRAINING_IMAGES_NAME KnownImages Overlap described_overlap described_reference "
            "training_overlap"
        ),
    },
)
