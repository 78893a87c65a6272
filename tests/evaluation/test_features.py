"""Feature extractors of every kind: what they load, what they refuse, what they compute."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ddpm_pipeline.evaluation.features import FeatureExtractor, load_features
from ddpm_pipeline.evaluation.small_features import SmallFeatures, SmallFeaturesConfig

SMALL = SmallFeaturesConfig(size=8, widths=(4, 4, 8), dim=6, num_classes=2)


def random_images(count: int = 3, channels: int = 3, size: int = 28) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)


def test_features_of_an_image_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    SmallFeatures(SMALL).save_pretrained(tmp_path)
    extractor, images = load_features(tmp_path), random_images(5, 1, 8)
    assert_close(extractor(images)[2:3], extractor(images[2:3]))


def test_features_are_of_bytes(tmp_path: Path) -> None:
    SmallFeatures(SMALL).save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=r"images must be uint8, got torch\.float32"):
        load_features(tmp_path)(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"images must be \(B, C, H, W\), got \(1, 8, 8\)"):
        load_features(tmp_path)(torch.zeros(1, 8, 8, dtype=torch.uint8))


# Vision models of transformers.


@pytest.fixture
def dinov2(tmp_path: Path) -> Path:
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=28,
        patch_size=14,
    )
    Dinov2Model(config).save_pretrained(tmp_path)
    side = {"height": 28, "width": 28}
    BitImageProcessorPil(
        size={"shortest_edge": 32},
        crop_size=side,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(tmp_path)
    return tmp_path


def test_vision_features_are_the_class_token_after_the_models_own_preprocessing(
    dinov2: Path,
) -> None:
    from transformers import BitImageProcessorPil, Dinov2Model

    images = random_images()
    processor = BitImageProcessorPil.from_pretrained(dinov2, do_resize=False)
    pixels = processor(list(images), return_tensors="pt", input_data_format="channels_first")
    with torch.no_grad():
        hidden = Dinov2Model.from_pretrained(dinov2).eval()(**pixels).last_hidden_state
    extractor = load_features(str(dinov2))
    assert extractor.resize == "bicubic, antialiased, to 28×28"
    assert_close(extractor(images), hidden[:, 0], rtol=1e-4, atol=1e-5)


def test_vision_features_resize_as_pillow_does(dinov2: Path) -> None:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (70, 70), dtype=np.uint8)
    small = Image.fromarray(noise).resize((28, 28), Image.Resampling.BICUBIC)
    network = load_features(str(dinov2)).network
    seen = []
    network.model.register_forward_pre_hook(
        lambda _, __, options: seen.append(options["pixel_values"]), with_kwargs=True
    )
    network(torch.from_numpy(noise).expand(1, 1, 70, 70))
    levels = (seen[0] * network.std + network.mean) * 255
    expected = torch.from_numpy(np.array(small)).float().expand(1, 3, 28, 28)
    assert_close(levels, expected, rtol=0, atol=2)


def test_grey_images_count_as_rgb_with_equal_channels(dinov2: Path) -> None:
    extractor, grey = load_features(str(dinov2)), random_images(2, 1)
    assert torch.equal(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)))
    with pytest.raises(ValueError, match="grey or RGB images, got 4 channels"):
        extractor(random_images(2, 4))


def test_a_model_whose_pooler_would_be_random_is_refused(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=28,
        patch_size=14,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks the weights of pooler\.dense\.bias, .*random"):
        load_features(tmp_path)


def test_a_model_of_text_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    BertModel(config).save_pretrained(tmp_path)
    settings = {"size": 28, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="must be a vision model, but it takes input_ids"):
        load_features(tmp_path)


def test_a_name_that_is_nothing_says_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"features='no-such' must be 'inception', a \.py file"):
        load_features("no-such")


# Other extractors.


def test_a_users_module_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        "class Mean(torch.nn.Module):\n"
        "    resize = 'none'\n"
        "    def forward(self, images):\n"
        "        return images.double().mean((2, 3))\n"
        "def feature_extractor():\n"
        "    return Mean()\n"
    )
    extractor, images = load_features(path), random_images()
    assert not extractor.network.training
    assert extractor.name == "mine.py"
    assert extractor.resize == "none"
    assert_close(extractor(images), images.float().mean((2, 3)))
    assert extractor(images).dtype == torch.float32
    before = extractor.fingerprint
    path.write_text(path.read_text().replace("mean((2, 3))", "amax((2, 3))"))
    assert load_features(path).fingerprint != before


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("x = 1", ValueError, r"must define feature_extractor\(\)"),
        ("def feature_extractor(): return 3", TypeError, r"torch\.nn\.Module, got int"),
    ],
)
def test_a_file_without_an_extractor_is_refused(
    tmp_path: Path, code: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(error, match=message):
        load_features(tmp_path / "mine.py")
    with pytest.raises(ValueError, match=r"absent\.py' does not exist"):
        load_features(tmp_path / "absent.py")


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (nn.Identity(), ValueError, r"must return \(3, D\) for 3 images, got \(3, 3, 28, 28\)"),
        (nn.Flatten(0, 2), ValueError, r"got \(252, 28\)"),
    ],
)
def test_features_of_another_shape_are_refused(
    network: nn.Module, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        FeatureExtractor(network, "mine", "none", "")(random_images())


@pytest.mark.parametrize(
    ("library", "source"), [("torch_fidelity", "inception"), ("transformers", "some/model")]
)
def test_a_missing_library_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, library: str, source: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=r"pip install ddpm_pipeline\[eval\]"):
        load_features(source)


def test_the_fingerprint_follows_the_weights(tmp_path: Path) -> None:
    network = SmallFeatures(SMALL)
    network.save_pretrained(tmp_path / "a")
    network.save_pretrained(tmp_path / "b")
    first, second = load_features(tmp_path / "a"), load_features(tmp_path / "b")
    assert first.fingerprint == second.fingerprint
    SmallFeatures(SMALL).save_pretrained(tmp_path / "b")
    assert load_features(tmp_path / "b").fingerprint != first.fingerprint
