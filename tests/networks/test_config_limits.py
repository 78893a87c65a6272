"""Configs that ask for too much are refused before anything is built."""

from __future__ import annotations

import pytest

from ddpm_pipeline.networks import check_network_config, unet_config


@pytest.mark.parametrize("size", ["small", "base", "ddpm"])
@pytest.mark.parametrize("resolution", [8, 32, 1024])
def test_our_own_networks_are_within_the_limits(size: str, resolution: int) -> None:
    config = unet_config(
        size, resolution=resolution, channels=4, out_channels=8, num_classes=100_000
    )
    check_network_config(config)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"layers_per_block": 10**6},
            "layers_per_block of the network .* from 1 to 64, got 1000000",
        ),
        ({"layers_per_block": "2"}, "layers_per_block of the network must be an integer"),
        ({"layers_per_block": True}, "layers_per_block of the network must be an integer"),
        ({"block_out_channels": [10**9]}, "block_out_channels of the network"),
        ({"block_out_channels": [8, None]}, "block_out_channels of the network"),
        ({"block_out_channels": 8}, "block_out_channels of the network must be a list, got 8"),
        ({"block_out_channels": 17 * [8]}, "at most 16 entries, got 17"),
        ({"down_block_types": "DownBlock2D"}, "down_block_types of the network must be a list"),
        ({"sample_size": 10**6}, "sample_size of the network"),
        ({"sample_size": [8, 10**6]}, "sample_size of the network"),
        ({"in_channels": -1}, "in_channels of the network"),
        ({"num_class_embeds": 10**8}, "num_class_embeds of the network"),
        ({"attention_head_dim": 10**9}, "attention_head_dim of the network must be at most"),
        ({"norm_num_groups": -(10**9)}, "norm_num_groups of the network must be at most"),
    ],
)
def test_what_no_network_has_is_refused(changes: dict[str, object], named: str) -> None:
    config = unet_config("small", resolution=32, channels=3, out_channels=3, num_classes=None)
    with pytest.raises(ValueError, match=named):
        check_network_config({**config, **changes})
