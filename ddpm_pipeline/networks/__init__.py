"""The networks: U-Nets by size, any network behind one signature, and what makes them fast."""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.networks.adapting import adapted_unet, downsampling, network_of_config
    from ddpm_pipeline.networks.capturing import capture_on_cuda
    from ddpm_pipeline.networks.classes import (
        check_asked_classes,
        check_trained,
        class_numbers,
        listed,
        trained_classes,
    )
    from ddpm_pipeline.networks.compiling import CompiledNetwork, compiles_for_cuda
    from ddpm_pipeline.networks.condition import (
        Condition,
        Told,
        blank_inputs,
        embedding_width,
        image_channels,
        input_options,
        joined_rows,
        network_inputs,
        ready_for,
        told_of,
        told_tensors,
        unconditional,
    )
    from ddpm_pipeline.networks.conditioned_on import (
        Conditioning,
        Upsampling,
        check_asked_condition,
    )
    from ddpm_pipeline.networks.conditioning import (
        condition_on,
        conditions,
        plain_weights,
        unconditioned,
    )
    from ddpm_pipeline.networks.config_limits import MAX_CLASSES, check_network_config
    from ddpm_pipeline.networks.cpu_layers import (
        keep_freed_memory,
        use_float32_attention,
        use_matrix_products,
    )
    from ddpm_pipeline.networks.denoiser import (
        Denoiser,
        device_of,
        dtype_of,
        evaluating,
        run_denoiser,
    )
    from ddpm_pipeline.networks.inference import (
        FastForward,
        InferencePrecision,
        computes_in_bfloat16,
    )
    from ddpm_pipeline.networks.launching import is_sharded_run, without_accelerates_own
    from ddpm_pipeline.networks.model_facts import ModelFacts, facts_of, set_facts
    from ddpm_pipeline.networks.own import OwnNetwork
    from ddpm_pipeline.networks.rows import rows_per_call
    from ddpm_pipeline.networks.sharding import gathered, joined, like, own_part, shard, whole
    from ddpm_pipeline.networks.unets import (
        attention_warning,
        check_halvings,
        fresh_unet,
        unet_config,
    )
    from ddpm_pipeline.networks.value_scale import EXACT_TYPES, ValueScale

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "adapting": "adapted_unet downsampling network_of_config",
        "capturing": "capture_on_cuda",
        "classes": "check_asked_classes check_trained class_numbers listed trained_classes",
        "compiling": "CompiledNetwork compiles_for_cuda",
        "condition": "Condition Told blank_inputs embedding_width image_channels input_options "
        "joined_rows network_inputs ready_for told_of told_tensors unconditional",
        "conditioned_on": "Conditioning Upsampling check_asked_condition",
        "conditioning": "condition_on conditions plain_weights unconditioned",
        "config_limits": "MAX_CLASSES check_network_config",
        "cpu_layers": "keep_freed_memory use_float32_attention use_matrix_products",
        "denoiser": "Denoiser device_of dtype_of evaluating run_denoiser",
        "inference": "FastForward InferencePrecision computes_in_bfloat16",
        "launching": "is_sharded_run without_accelerates_own",
        "model_facts": "ModelFacts facts_of set_facts",
        "own": "OwnNetwork",
        "rows": "rows_per_call",
        "sharding": "gathered joined like own_part shard whole",
        "value_scale": "EXACT_TYPES ValueScale",
        "unets": "attention_warning check_halvings fresh_unet unet_config",
    },
)
