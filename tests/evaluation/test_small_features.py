"""The classifier for small images: saved, loaded, trained by the example."""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.broken_files import at_most
from helpers.paths import EXAMPLES
from safetensors.torch import load_file

from ddpm_pipeline.evaluation.features import load_features
from ddpm_pipeline.evaluation.small_features import SmallFeatures, SmallFeaturesConfig

if TYPE_CHECKING:
    from pathlib import Path

SMALL = SmallFeaturesConfig(size=8, widths=(4, 4, 8), dim=6, num_classes=2)
EXAMPLE = EXAMPLES / "train_features.py"


def random_images(count: int, channels: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)


def test_small_features_load_as_they_were_saved(tmp_path: Path) -> None:
    network = SmallFeatures(SMALL).eval()
    network.save_pretrained(tmp_path)
    extractor = load_features(tmp_path)
    images = random_images(5, 1, 8)
    assert torch.equal(extractor(images), network(images))
    assert extractor(images).shape == (5, 6)
    assert extractor.resize == "none"
    assert not extractor.network.training
    assert not any(p.requires_grad for p in extractor.network.parameters())


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 16, 16)])
def test_small_features_refuse_other_images(tmp_path: Path, shape: tuple[int, ...]) -> None:
    SmallFeatures(SMALL).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"images of 1 channel\(s\) and 8×8 pixels, got"):
        load_features(tmp_path)(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("config", ['{"dim": 6}', '{"widths": [1, 2, 3], "other": 1}'])
def test_a_directory_of_something_else_is_refused(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match="neither a SmallFeatures network nor a vision model"):
        load_features(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 10**7}, "channels of SmallFeatures must be an integer from 1 to 4096"),
        ({"size": 10**6}, "size of SmallFeatures must be an integer"),
        ({"size": True}, "size of SmallFeatures must be an integer"),
        ({"widths": [8, 8, 10**9]}, "widths of SmallFeatures must be an integer"),
        ({"widths": [8, 8]}, "widths must be 3 numbers"),
        ({"dim": "x"}, "dim of SmallFeatures must be an integer"),
        ({"num_classes": 10**12}, "num_classes of SmallFeatures must be an integer"),
        ({"size": 1024, "dim": 4096}, "dim=4096 of SmallFeatures takes a matrix of"),
        ({"dim": 4096, "num_classes": 10**6}, r"dim=4096 .* 1,000,000 rows"),
    ],
)
def test_a_network_of_any_size_is_not_built(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    SmallFeatures(SMALL).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with at_most(5), pytest.raises(ValueError, match=rf"config\.json: {message}"):
        load_features(tmp_path)


@pytest.mark.parametrize("content", [b"[]", b"3", b"\xff\xfe", b"{", 100_000 * b"["])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        load_features(tmp_path)


def test_a_directory_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no readable config\.json"):
        load_features(tmp_path)


def test_the_example_trains_an_extractor_that_tells_classes_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.arange(256) % 2
    images = np.random.default_rng(0).integers(0, 100, (256, 8, 8), dtype=np.uint8)
    images[labels == 1, 2:5, 2:5] += 120
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    spec = importlib.util.spec_from_file_location("train_features", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = example  # dataclasses look their module up
    spec.loader.exec_module(example)
    config = example.Config(
        data=str(tmp_path / "data.npz"),
        split=None,
        test_split=None,
        output=str(tmp_path / "features"),
        resolution=8,
        dim=12,
        epochs=3,
        batch_size=32,
        threads=1,
    )
    example.main(config)
    assert "saved to" in capsys.readouterr().out
    network = load_features(tmp_path / "features").network
    assert network.config == SmallFeaturesConfig(size=8, dim=12, num_classes=2)
    scores = network.logits(torch.from_numpy(images).unsqueeze(1))
    assert (scores.argmax(1).numpy() == labels).mean() > 0.95


def test_a_saved_network_is_its_weights_and_its_shape(tmp_path: Path) -> None:
    network = SmallFeatures(SMALL)
    network.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == {"channels": 1, "size": 8, "widths": [4, 4, 8], "dim": 6, "num_classes": 2}
    weights = load_file(tmp_path / "model.safetensors")
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(weights[name], t) for name, t in network.state_dict().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_scores_are_a_linear_map_of_the_features() -> None:
    network, images = SmallFeatures(SMALL).eval(), random_images(3, 1, 8)
    expected = torch.einsum("cd, bd -> bc", network.classify.weight, network(images))
    torch.testing.assert_close(network.logits(images), expected + network.classify.bias)
