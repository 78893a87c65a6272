"""Facts of training in a network's config stay through saving, stock diffusers and the Hub."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import diffusers
import pytest
import torch
from helpers.pipelines import pipeline
from torch import nn

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.networks.model_facts import ModelFacts, facts_of, set_facts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from helpers.hubs import Hub

FACTS = ModelFacts(
    class_names=("cat", "dog", "ä b"),
    class_counts=(4, 0, 7),
    trains_null_class=False,
    reading={"fit": "pad", "value_range": [0.0, 1.0]},
)


@pytest.fixture
def unet(tiny_unet: Callable[..., diffusers.UNet2DModel]) -> diffusers.UNet2DModel:
    made = tiny_unet(num_class_embeds=4)
    set_facts(made, FACTS)
    return made


def test_facts_are_read_as_they_were_set(unet: diffusers.UNet2DModel) -> None:
    assert facts_of(unet) == facts_of(unet.config) == FACTS
    assert json.loads(json.dumps(FACTS.to_dict())) == FACTS.to_dict()
    assert ModelFacts.from_dict({**FACTS.to_dict(), "of a later version": 1}) == FACTS
    set_facts(unet, ModelFacts(reading={}))
    assert facts_of(unet) == ModelFacts(reading={})


def test_a_model_of_others_has_none(tiny_unet: Callable[..., diffusers.UNet2DModel]) -> None:
    assert facts_of(tiny_unet()) == ModelFacts()
    assert facts_of(nn.Linear(2, 2)) == ModelFacts()
    assert facts_of(SimpleNamespace(config=SimpleNamespace(sample_size=8))) == ModelFacts()


def test_facts_are_found_behind_wrappers(unet: diffusers.UNet2DModel) -> None:
    assert facts_of(nn.DataParallel(unet)) == FACTS
    assert facts_of(torch.compile(unet)) == FACTS


def test_facts_of_classes_do_not_outlive_a_change_of_the_classes(
    unet: diffusers.UNet2DModel,
) -> None:
    other = diffusers.UNet2DModel.from_config(unet.config, num_class_embeds=9)
    assert facts_of(other) == ModelFacts(reading=FACTS.reading)


def test_they_stay_through_configs_saving_and_stock(
    unet: diffusers.UNet2DModel, tmp_path: Path
) -> None:
    assert facts_of(diffusers.UNet2DModel.from_config(unet.config)) == FACTS
    unet.register_to_config(dropout=0.5)
    assert facts_of(unet) == FACTS
    pipeline(unet).save_pretrained(tmp_path / "ours")
    assert facts_of(DDPMPipeline.from_pretrained(tmp_path / "ours").unet) == FACTS
    code = (
        "import sys; sys.modules['ddpm_pipeline'] = None\n"
        "import diffusers\n"
        "pipe = diffusers.DiffusionPipeline.from_pretrained(sys.argv[1])\n"
        "pipe.save_pretrained(sys.argv[2])\n"
        "unet = diffusers.UNet2DModel.from_pretrained(sys.argv[1], subfolder='unet')\n"
        "diffusers.UNet2DModel.from_config(unet.config).save_pretrained(sys.argv[2] + '/fresh')\n"
    )
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    run = subprocess.run(
        [*command, tmp_path / "ours", tmp_path / "stock"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    said = [line for line in run.stderr.splitlines() if "Loading" not in line]
    assert not [line for line in said if "config" in line or "expected" in line], run.stderr
    assert facts_of(DDPMPipeline.from_pretrained(tmp_path / "stock").unet) == FACTS
    fresh = diffusers.UNet2DModel.from_pretrained(tmp_path / "stock" / "fresh")
    assert facts_of(fresh) == FACTS


@pytest.mark.slow
def test_they_are_pushed_to_the_hub(unet: diffusers.UNet2DModel, tmp_path: Path, hub: Hub) -> None:
    pipeline(unet).save_pretrained(tmp_path / "model")
    code = (
        "import sys; from ddpm_pipeline import DDPMPipeline\n"
        "DDPMPipeline.from_pretrained(sys.argv[1]).push_to_hub('alice/pets')\n"
    )
    hub.python(code, str(tmp_path / "model"))
    config = json.loads(hub.content("alice/pets", "unet/config.json"))
    assert ModelFacts.from_dict(config["_ddpm_pipeline"]) == FACTS
    assert "Classes: 0 cat, 1 dog, 2 ä b." in hub.content("alice/pets", "README.md").decode()
