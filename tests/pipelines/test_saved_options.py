"""Options that a saved model's configs refuse: the same words as when the model is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.unets import make_tiny_unet

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.networks import ModelFacts, set_facts
from ddpm_pipeline.pipelines import SamplingOptions, load_image_sampler
from ddpm_pipeline.pipelines.saved_options import check_saved_classes, check_saved_steps


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    named = make_tiny_unet(num_class_embeds=4)
    facts = ModelFacts(class_names=("cat", "dog", "owl"), class_counts=(5, 5, 0))
    set_facts(named, facts)
    for name, unet in (
        ("plain", make_tiny_unet()),
        ("classes", make_tiny_unet(num_class_embeds=4)),
        ("named", named),
    ):
        DDPMPipeline(unet, DDPMScheduler(20)).save_pretrained(folder / name)
    return folder


def check_saved(options: SamplingOptions) -> None:
    check_saved_steps(options.model, options.num_inference_steps)
    check_saved_classes(options.model, options.class_labels, options.guidance_scale)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain", {"num_inference_steps": 21}),
        ("plain", {"class_labels": (0,)}),
        ("plain", {"guidance_scale": 2.0}),
        ("classes", {"class_labels": (4,)}),
        ("classes", {"class_labels": ("cat",)}),
        ("named", {"class_labels": ("cow",)}),
        ("named", {"class_labels": ("owl",)}),
        ("named", {"class_labels": (-1,)}),
    ],
)
def test_a_mistake_is_told_as_by_the_loaded_model(
    models: Path, name: str, options: dict[str, object]
) -> None:
    asked = SamplingOptions(model=str(models / name), **{"num_inference_steps": 5, **options})
    with pytest.raises(ValueError, match=r"must|need") as early:
        check_saved(asked)
    with pytest.raises(ValueError, match=r"must|need") as late:
        load_image_sampler(asked)([0])
    assert str(early.value) == str(late.value)


def test_missing_classes_are_asked_for(models: Path) -> None:
    with pytest.raises(ValueError, match=r"class_labels must be given, .*: cat, dog$"):
        check_saved_classes(str(models / "named"), None, 1.0)


def test_what_is_allowed_passes(models: Path) -> None:
    check_saved_steps(str(models / "plain"), 1, 20, None)
    check_saved_classes(str(models / "plain"), None, 1.0)
    check_saved_classes(str(models / "named"), ("cat", 1), 1.0)


def test_a_model_that_is_not_here_is_left_alone(tmp_path: Path) -> None:
    check_saved_steps("alice/digits", 5000)
    check_saved_classes("alice/digits", ("cat",), 2.0)
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text(json.dumps({}))
    check_saved_steps(str(tmp_path), 5000)


def test_it_needs_no_torch() -> None:
    code = (
        "import sys; from ddpm_pipeline.pipelines import check_saved_steps, check_saved_classes; "
        "check_saved_steps('a', 1); check_saved_classes('a', None, 1.0); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
