"""What every folder needs and none owns: whole files, hashes, seeds, processes, checks."""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.common.checks import (
        check_above_zero,
        check_at_least,
        check_choice,
        check_integer,
        is_integer,
    )
    from ddpm_pipeline.common.config_key import PRIVATE_KEY
    from ddpm_pipeline.common.distributed import (
        draw_seed,
        join_restarted_processes,
        on_main,
        process_state,
        shared_accelerator,
    )
    from ddpm_pipeline.common.files import (
        TEMPORARY_PATTERN,
        discard_unfinished,
        sync_path,
        write_aside,
        write_bytes,
        write_figure,
        write_json,
        write_picture,
        write_text,
        written_aside,
    )
    from ddpm_pipeline.common.fingerprints import (
        check_weights,
        file_hash,
        tensors_hash,
        weights_hash,
        weights_hashes,
    )
    from ddpm_pipeline.common.inside import check_inside, is_plain_name
    from ddpm_pipeline.common.keys import key_of, stat_key
    from ddpm_pipeline.common.libraries import (
        http_library,
        library_versions,
        saving_options,
    )
    from ddpm_pipeline.common.likeness import normalized
    from ddpm_pipeline.common.memory import check_memory
    from ddpm_pipeline.common.odd_names import load_tensors, utf8_alias
    from ddpm_pipeline.common.option_names import as_typed, names_option
    from ddpm_pipeline.common.paths import (
        MODEL_INDEX,
        at_home,
        check_data,
        check_exists,
        check_has_folder,
        check_model,
        check_new_folder,
        check_output_file,
        check_output_folder,
        check_saved_model,
        expand_home,
        is_hub_name,
        is_repo_id,
        no_empty_folder,
    )
    from ddpm_pipeline.common.precision import float32_arithmetic, precise_dtype
    from ddpm_pipeline.common.randomness import stream_generator, stream_key, stream_seed
    from ddpm_pipeline.common.sides import Resolution, as_resolution, described_sides, sides_of
    from ddpm_pipeline.common.state_file import StateFile
    from ddpm_pipeline.common.terminal_text import printable
    from ddpm_pipeline.common.transfers import moved
    from ddpm_pipeline.common.version import __version__

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "checks": "check_above_zero check_at_least check_choice check_integer is_integer",
        "config_key": "PRIVATE_KEY",
        "distributed": (
            "draw_seed join_restarted_processes on_main process_state shared_accelerator"
        ),
        "files": (
            "TEMPORARY_PATTERN discard_unfinished sync_path write_aside write_bytes write_figure "
            "write_json write_picture write_text written_aside"
        ),
        "fingerprints": "check_weights file_hash tensors_hash weights_hash weights_hashes",
        "inside": "check_inside is_plain_name",
        "keys": "key_of stat_key",
        "libraries": "http_library library_versions saving_options",
        "likeness": "normalized",
        "memory": "check_memory",
        "odd_names": "load_tensors utf8_alias",
        "option_names": "as_typed names_option",
        "paths": (
            "MODEL_INDEX at_home check_data check_exists check_has_folder check_model "
            "check_new_folder check_output_file check_output_folder check_saved_model expand_home "
            "is_hub_name is_repo_id no_empty_folder"
        ),
        "precision": "float32_arithmetic precise_dtype",
        "randomness": "stream_generator stream_key stream_seed",
        "sides": "Resolution as_resolution described_sides sides_of",
        "state_file": "StateFile",
        "terminal_text": "printable",
        "transfers": "moved",
        "version": "__version__",
    },
)
