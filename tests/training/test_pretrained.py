"""What is asked of the Hub for a model that a run starts from."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.unets import make_tiny_unet

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.training.pretrained import open_pretrained

INDEX = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}
NAME = "alice/digits"


def test_a_model_of_the_hub_is_looked_at_before_it_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = DDPMPipeline(make_tiny_unet(1), DDPMScheduler())
    index, asked = dict(INDEX), []

    def load_config(name: str, **options: Any) -> dict[str, Any]:
        asked.append(("index", name, options))
        return index

    def from_pretrained(name: str, **options: Any) -> DDPMPipeline:
        asked.append(("model", name, options))
        return pipe

    monkeypatch.setattr(DDPMPipeline, "load_config", load_config)
    monkeypatch.setattr(DDPMPipeline, "from_pretrained", from_pretrained)
    found = open_pretrained(NAME, "v1")
    assert found.unet is pipe.unet
    assert found.origin == "alice/digits of the Hub at v1"
    assert asked == [(what, NAME, {"revision": "v1"}) for what in ("index", "model")]
    asked.clear()
    index["unet"] = ["diffusers", "UNet2DConditionModel"]
    with pytest.raises(ValueError, match="its unet is a UNet2DConditionModel"):
        open_pretrained(NAME)
    assert asked == [("index", NAME, {})]


def test_a_word_is_no_name_of_the_hub() -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder 'digits', .* called OWNER/NAME"):
        open_pretrained("digits")
