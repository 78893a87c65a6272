"""What the config of a network may ask for: sizes that are held against limits first.

    check_network_config(json.loads(Path("model/unet/config.json").read_text()))

A config may come from anywhere, and a U-Net of it is built before its weights are looked at. Real
networks stay far below these limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ddpm_pipeline.common import check_integer, is_integer

__all__ = ["MAX_CLASSES", "check_network_config"]


MAX_CLASSES = 999_999
"""The most classes; one more embedding is for none of them."""
_MOST = {
    "layers_per_block": 64,
    "sample_size": 8_192,
    "in_channels": 4_096,
    "out_channels": 8_192,
    "num_class_embeds": MAX_CLASSES + 1,
}
_MOST_LEVELS = 16
_MOST_CHANNELS = 16_384
_MOST_OF_ANY = 1_000_000
_LEVELS = ("block_out_channels", "down_block_types", "up_block_types")


def check_network_config(config: Mapping[str, object]) -> None:
    """Refuse the config of a network that would be too large to build.

    Raises:
        ValueError: If a number is above its limit, or no number where one must be; names it.
    """
    for key in _LEVELS:
        value = config.get(key)
        if value is not None and (isinstance(value, str) or not isinstance(value, Sequence)):
            raise ValueError(f"{key} of the network must be a list, got {value!r:.100}")
        if value is not None and len(value) > _MOST_LEVELS:
            raise ValueError(
                f"{key} of the network must have at most {_MOST_LEVELS} entries, got {len(value)}"
            )
    for width in config.get("block_out_channels") or ():
        check_integer("block_out_channels of the network", width, most=_MOST_CHANNELS)
    for key, value in config.items():
        for number in value if isinstance(value, list | tuple) else (value,):
            _check_number(key, number)


def _check_number(key: str, value: object) -> None:
    """Refuse a number above the limit of its key, and anything else in the place of a size."""
    if key in _MOST and value is not None:
        check_integer(f"{key} of the network", value, most=_MOST[key])
    elif is_integer(value) and abs(value) > _MOST_OF_ANY:
        raise ValueError(f"{key} of the network must be at most {_MOST_OF_ANY:,}, got {value}")
