"""The model card: what it says, that its code runs, and that other people's text stays."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers.processes import exit_codes, fork
from helpers.training_runs import tiny_config
from huggingface_hub import EvalResult, ModelCard, metadata_eval_result
from huggingface_hub.repocard_data import model_index_to_eval_results
from PIL import Image

from ddpm_pipeline import DDPMPipeline, DDPMScheduler, train
from ddpm_pipeline.calibration.config import CalibrateConfig
from ddpm_pipeline.calibration.saved_model import calibrate_saved_model
from ddpm_pipeline.cards.card import card_picture, renew_card
from ddpm_pipeline.cards.tables import plain
from ddpm_pipeline.cli.train import parse_arguments
from ddpm_pipeline.evaluation.config import EvaluateConfig
from ddpm_pipeline.evaluation.saved_model import evaluate
from ddpm_pipeline.likelihood.config import BoundConfig
from ddpm_pipeline.likelihood.saved_model import bound_of_saved_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel

FEATURES = """
import torch

class Means(torch.nn.Module):
    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images / 255, 2).flatten(1)

def feature_extractor():
    return Means()
"""
REPO = "alice/digits"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with all that is measured of its model, and where the data are, beside it."""
    root = tmp_path_factory.mktemp("secret-place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDPM_PIPELINE_CACHE", str(root / "cache"))
        train(tiny_config(root, max_train_steps=4, save_images_steps=2))
        (root / "means.py").write_text(FEATURES)
        model, data = str(root / "run"), str(root / "images.npy")
        evaluate(
            EvaluateConfig(
                model=model,
                data=data,
                features=str(root / "means.py"),
                num_images=20,
                num_inference_steps=4,
                num_nearest=0,
                kid_subsets=2,
                bound_images=8,
                seed=5,
            )
        )
        bound_of_saved_model(BoundConfig(model=model, data=data, num_images=12))
        calibrate_saved_model(
            CalibrateConfig(model=model, data=data, num_forwards=40, num_inference_steps=(4,))
        )
    return root


@pytest.fixture
def run(measured: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return shutil.copytree(measured / "run", tmp_path / "run")


def saved(unet: UNet2DModel, scheduler: DDPMScheduler, folder: Path) -> Path:
    DDPMPipeline(unet, scheduler).save_pretrained(folder)
    return folder


def results_on(text: str) -> list[EvalResult]:
    return ModelCard(text).data.eval_results


def snippets(text: str, repo: Path) -> list[str]:
    """The Python code on a card, for the model in a folder."""
    found = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(found) == 2
    return [code.replace(json.dumps(REPO), json.dumps(str(repo))) for code in found]


def command_on(text: str) -> list[str]:
    words = re.search(r"^(`{3,})bash\nddpm train (.*?)^\1$", text, re.DOTALL | re.MULTILINE)[2]
    return shlex.split(words.replace("\\\n", ""))


# What it says.


def test_the_metadata_are_what_the_hub_looks_for(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(renew_card(run, repo_id=REPO, license="apache-2.0", tags=["digits"]))
    data = ModelCard.load(path).data
    assert (data.library_name, data.pipeline_tag) == (
        "diffusers",
        "unconditional-image-generation",
    )
    assert data.license == "apache-2.0"
    assert data.tags[-1] == "digits"
    assert data.model_name == "digits"
    metadata_eval_result(  # what huggingface_hub writes can be read beside it
        model_pretty_name="digits",
        task_pretty_name="x",
        task_id="unconditional-image-generation",
        metrics_pretty_name="IS",
        metrics_id="inception_score",
        metrics_value=1.5,
        dataset_pretty_name="y",
        dataset_id="y",
    )


def test_every_number_is_the_reports_and_says_how_it_was_obtained(run: Path) -> None:
    text = renew_card(run, repo_id=REPO)
    evaluation = json.loads((run / "evaluation.json").read_text())
    bound = json.loads((run / "bound.json").read_text())
    found = {(r.metric_args["measured_with"], r.metric_type): r for r in results_on(text)}
    values = {key: result.metric_value for key, result in found.items()}
    assert values == {
        ("ddpm evaluate", "frechet_distance"): evaluation["frechet_distance"],
        ("ddpm evaluate", "kid"): evaluation["kid"],
        ("ddpm evaluate", "precision"): evaluation["precision"],
        ("ddpm evaluate", "recall"): evaluation["recall"],
        ("ddpm evaluate", "bits_per_dim"): evaluation["bound"]["bits_per_dim"],
        ("ddpm bound", "bits_per_dim"): bound["bits_per_dim"],
    }
    always = {"num_images", "seed", "weights", "versions"}
    for (_, kind), result in found.items():
        needed = always | (
            {"standard_error", "decoder", "num_inference_steps", "variance_type", "estimator"}
            if kind == "bits_per_dim"
            else {"num_reference_images", "reference_fingerprint", "features", "resize", "sampler"}
            | {"num_inference_steps"}
        )
        assert needed <= result.metric_args.keys()
        assert result.dataset_name == "images.npy"
    kid = found["ddpm evaluate", "kid"].metric_args
    assert (kid["seed"], kid["num_inference_steps"], kid["eta"]) == (5, 4, 0.0)
    assert kid["standard_error"] == evaluation["kid_standard_error"]


def test_a_table_never_stands_without_its_circumstances(run: Path) -> None:
    text = renew_card(run, repo_id=REPO)
    for words in ("20 samples against 40 images of images.npy", "K = 4, eta = 0; seed 5"):
        assert words in text
    for words in (
        "features means.py (4 dimensions;",
        "12 images of images.npy",
        "± is the standard",
    ):
        assert words in text
    assert "8 timesteps per image, drawn by rate" in text
    assert "from 40 forward passes over 40 images of images.npy; seed 0" in text
    assert "biased upwards" in text
    bound = json.loads((run / "bound.json").read_text())
    assert f"{bound['bits_per_dim']:.4g} ± {bound['standard_error']:.2g}" in text
    # Each table follows a sentence that ends in a colon.
    lines = text.splitlines()
    heads = [i for i, line in enumerate(lines) if set(line) == set("| -")]
    assert len(heads) == 4
    assert all(lines[i - 2 : i - 1] == [""] and lines[i - 3].endswith(":") for i in heads)


def test_the_split_is_named(run: Path) -> None:
    bound = json.loads((run / "bound.json").read_text())
    bound["data"] |= {"name": "ylecun/mnist", "split": "test"}
    (run / "bound.json").write_text(json.dumps(bound))
    text = renew_card(run, repo_id=REPO)
    (result,) = [r for r in results_on(text) if r.dataset_split]
    assert (result.dataset_type, result.dataset_split) == ("ylecun/mnist", "test")
    assert "12 images of ylecun/mnist, split test;" in text


def test_training_is_told_without_paths(run: Path, measured: Path) -> None:
    text = renew_card(run, repo_id=REPO)
    record = json.loads((run / "training_record.json").read_text())
    assert "Training images: images.npy, 40 of them." in text
    assert f"4 updates of 4 images in {record['seconds']:.1f} s, on 1 × CPU" in text
    assert str(measured) not in text
    assert "secret-place" not in text
    named = parse_arguments(command_on(text)).training
    ours = tiny_config(measured.parent / "again", max_train_steps=4)
    for option in ("resolution", "train_batch_size", "max_train_steps", "random_flip", "seed"):
        assert getattr(named, option) == getattr(ours, option)
    assert "Training images: handwritten digits, 40" in renew_card(
        run, repo_id=REPO, data="handwritten digits"
    )


def test_a_data_set_of_the_hub_is_linked(run: Path) -> None:
    config = json.loads((run / "training_config.json").read_text())
    config |= {"train_data_dir": None, "dataset_name": "ylecun/mnist"}
    (run / "training_config.json").write_text(json.dumps(config))
    assert ModelCard(renew_card(run, repo_id=REPO)).data.datasets == ["ylecun/mnist"]


def test_the_newest_grid_is_shown_with_how_it_was_drawn(run: Path) -> None:
    assert card_picture(run) == "samples.png"
    with (
        Image.open(run / "samples.png") as shown,
        Image.open(run / "samples" / "step-0000004.png") as grid,
    ):
        times = 320 // grid.width
        assert shown.size == (times * grid.width, times * grid.height)
        assert np.array_equal(np.asarray(shown)[::times, ::times], np.asarray(grid))
    text = renew_card(run, repo_id=REPO)
    assert "![Samples of this model](samples.png)" in text
    assert "2 samples after 4 updates, not selected: the averaged weights, DDIM with K = 2" in text
    (run / "samples.png").unlink()
    assert "](samples/step-0000004.png)" in renew_card(run, repo_id=REPO)
    shutil.rmtree(run / "samples")
    assert "![" not in renew_card(run, repo_id=REPO)


def test_a_bare_model_has_a_card(tiny_unet: Callable, tmp_path: Path) -> None:
    folder = saved(tiny_unet(), DDPMScheduler(12), tmp_path / "model")
    text = renew_card(folder, repo_id=REPO)
    assert "8×8 grey images" in text
    assert "## Results" not in text
    assert "## Training" not in text
    assert ModelCard(text).data.to_dict().keys() == {"library_name", "pipeline_tag", "tags"}
    with pytest.raises(ValueError, match="holds no saved pipeline with a U-Net"):
        renew_card(tmp_path, repo_id=REPO)


# Numbers that do not belong there.


def retrain(folder: Path) -> None:
    """Put other weights into a run's folder."""
    unet = DDPMPipeline.from_pretrained(folder).unet
    next(iter(unet.parameters())).data.add_(1)
    unet.save_pretrained(folder / "unet")


def test_numbers_of_other_weights_are_left_out_and_taken_off(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = renew_card(run, repo_id=REPO)
    retrain(run)
    text = renew_card(run, repo_id=REPO, existing=card)
    assert ModelCard(text).data.eval_results is None
    assert "## Results" not in text
    assert "## Fewer steps" not in text
    for name in ("evaluation.json", "bound.json", "calibration.json"):
        assert f"{name} is left out of the card: it is of other weights" in caplog.text


def test_numbers_stay_with_their_weights_where_the_reports_are_not_at_hand(run: Path) -> None:
    card = renew_card(run, repo_id=REPO)
    for name in ("evaluation.json", "bound.json", "calibration.json", "training_config.json"):
        (run / name).unlink()
    (run / "samples.png").unlink()
    shutil.rmtree(run / "samples")
    assert renew_card(run, repo_id=REPO, existing=card) == card
    alone = renew_card(run, repo_id=REPO)
    assert "## Results" not in alone


@pytest.mark.parametrize("missing", ["reference", "sampler", "num_images", "features"])
def test_a_number_without_provenance_is_left_out(
    run: Path, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    report = json.loads((run / "evaluation.json").read_text())
    del report[missing]
    (run / "evaluation.json").write_text(json.dumps(report))
    found = results_on(renew_card(run, repo_id=REPO))
    assert [r.metric_args["measured_with"] for r in found] == ["ddpm bound"]
    assert f"evaluation.json is left out of the card: it does not say '{missing}'" in caplog.text


def test_samples_of_another_program_and_numbers_that_are_none_are_left_out(run: Path) -> None:
    report = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps({**report, "sampler": {}}))
    bound = json.loads((run / "bound.json").read_text())
    (run / "bound.json").write_text(json.dumps({**bound, "bits_per_dim": math.nan}))
    assert ModelCard(renew_card(run, repo_id=REPO)).data.eval_results is None
    (run / "bound.json").write_text("{")
    assert "## Results" not in renew_card(run, repo_id=REPO)


# Other people's text.


def test_a_card_made_twice_is_the_same(run: Path) -> None:
    first = renew_card(run, repo_id=REPO, license="mit")
    assert renew_card(run, repo_id=REPO, license="mit", existing=first) == first
    (run / "README.md").write_text(first)
    assert renew_card(run, repo_id=REPO) == first


HAND_EDITED = """---
# a comment of mine
language: en
license: mit
tags: [mine]
date: 2024-01-02
pipeline_tag: image-to-image
nothing: null
model-index:
- name: my model
  results:
  - task: {type: unconditional-image-generation}
    dataset: {name: images.npy, type: images.npy}
    metrics:
    - {type: inception_score, value: 8.1, mine: 1}
---

# My model

Before, with `<!-- a comment -->` and **bold** | text.

## Training

I trained it myself.
"""


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_a_hand_edited_card_keeps_its_text_and_its_metadata(run: Path, line_break: str) -> None:
    existing = HAND_EDITED.replace("\n", line_break)
    text = renew_card(run, repo_id=REPO, existing=existing)
    assert existing.partition("null")[2].partition("---")[2] in text
    assert text.count("\n") == text.count(line_break)
    data = ModelCard(text).data.to_dict()
    assert (data["license"], data["language"], str(data["date"])) == ("mit", "en", "2024-01-02")
    assert data["pipeline_tag"] == "image-to-image"
    assert data["tags"][0] == "mine"
    assert "nothing: null" in text
    name, results = model_index_to_eval_results(data["model-index"])
    assert name == "my model"
    assert (results[0].metric_type, results[0].metric_value) == ("inception_score", 8.1)
    assert "mine: 1" in text
    assert len(results) == 7

    edited = text.replace("## Results", "## Lies") + "After." + line_break
    again = renew_card(run, repo_id=REPO, existing=edited)
    assert again == text + "After." + line_break
    (run / "evaluation.json").unlink()
    (run / "bound.json").unlink()
    retrain(run)
    bare = renew_card(run, repo_id=REPO, existing=again)
    left = ModelCard(bare).data.to_dict()["model-index"]
    assert [r["metrics"][0]["type"] for r in left[0]["results"]] == ["inception_score"]
    assert "After." in bare


def test_metadata_that_do_not_change_keep_their_bytes(run: Path) -> None:
    text = renew_card(run, repo_id=REPO, existing=HAND_EDITED)
    commented = text.replace("language: en", "language: en  # English")
    assert renew_card(run, repo_id=REPO, existing=commented) == commented


def test_marks_out_of_place_lose_no_text(run: Path) -> None:
    begin = "<!-- ddpm_pipeline:begin weights=0 -->"
    end = "<!-- ddpm_pipeline:end -->"
    existing = f"{end}\n\nfirst\n\n{begin}\n\nsecond\n"
    text = renew_card(run, repo_id=REPO, existing=existing)
    assert existing in text
    again = renew_card(run, repo_id=REPO, existing=text)
    assert again == text
    assert existing in again


@pytest.mark.parametrize(
    "broken", ["---\na: [\n---\n", "---\n- a\n---\n", "---\nmodel-index: 3\n---\n"]
)
def test_a_card_that_cannot_be_read_is_not_overwritten(run: Path, broken: str) -> None:
    with pytest.raises(ValueError, match=r"metadata of the present|model-index must be"):
        renew_card(run, repo_id=REPO, existing=broken)


EVIL = [
    "a | b `c` ```d``` <!-- ddpm_pipeline:end --> <script>x</script> [l](u) $x$ ---: {yaml: [",
    "---\nlicense: stolen\n---",
    "```\n## Results\n```",
    "<!-- ddpm_pipeline:begin weights=0 -->\n<!-- ddpm_pipeline:end -->",
]


@pytest.mark.parametrize("name", EVIL)
def test_names_of_data_break_neither_the_metadata_nor_the_page(run: Path, name: str) -> None:
    config = json.loads((run / "training_config.json").read_text())
    (run / "training_config.json").write_text(json.dumps({**config, "train_data_dir": name}))
    record = json.loads((run / "training_record.json").read_text())
    record["options"]["train_data_dir"] = name
    (run / "training_record.json").write_text(json.dumps(record))
    report = json.loads((run / "evaluation.json").read_text())
    report |= {"reference_data": name, "reference_split": name, "features": name}
    (run / "evaluation.json").write_text(json.dumps(report))
    text = renew_card(run, repo_id=REPO)
    assert renew_card(run, repo_id=REPO, existing=text) == text
    assert ModelCard(text).data.license is None
    assert {r.dataset_name for r in results_on(text)} == {name, "images.npy"}
    assert len(re.findall(r"^<!-- ddpm_pipeline:\w+.*-->$", text, re.MULTILINE)) == 2
    assert len(re.findall(r"^## ", text, re.MULTILINE)) == 5
    page = re.sub(r"^---.*?^---$", "", text, count=1, flags=re.DOTALL | re.MULTILINE)
    page = re.sub(r"^(`{3,}).*?^\1$", "", page, flags=re.DOTALL | re.MULTILINE)
    assert "<script>" not in page
    assert parse_arguments(command_on(text)).training.train_data_dir == " ".join(name.split())


def test_plain_text_has_no_marks_left() -> None:
    assert plain("a_b*\n<c>") == "a\\_b\\* \\<c\\>"


# The code that it shows.


def run_code(code: str, folder: Path, *, stock_only: bool = False) -> None:
    """Run code in a new process, in a folder."""

    def run() -> None:
        os.chdir(folder)
        if stock_only:
            for name in list(sys.modules):
                if name.split(".")[0] == "ddpm_pipeline":
                    sys.modules[name] = None
        exec(code, {"__name__": "__main__"})

    assert exit_codes([fork(run)]) == [0]


@pytest.mark.parametrize(
    ("options", "unet"),
    [
        ({}, {}),
        ({"variance_type": "learned_range"}, {"channels": 3, "out_channels": 6}),
        ({"variance_type": "learned"}, {"out_channels": 2, "num_class_embeds": 4}),
    ],
    ids=["plain", "learned_range", "learned-classes"],
)
def test_the_code_on_the_card_runs(
    tiny_unet: Callable, tmp_path: Path, options: dict[str, Any], unet: dict[str, Any]
) -> None:
    folder = saved(tiny_unet(**unet), DDPMScheduler(20, **options), tmp_path / "model")
    text = renew_card(folder, repo_id=REPO)
    ours, stock = snippets(text, folder)
    run_code(ours, tmp_path)
    with Image.open(tmp_path / "sample.png") as picture:
        assert picture.size == (8, 8)
    (tmp_path / "sample.png").unlink()
    run_code(stock, tmp_path, stock_only=True)
    with Image.open(tmp_path / "sample.png") as picture:
        assert np.asarray(picture).std() > 0
    assert ("passes no class labels" in text) == ("num_class_embeds" in unet)


def test_what_stock_does_otherwise_is_said(run: Path) -> None:
    text = renew_card(run, repo_id=REPO)  # ddpm calibrate made its variance analytic
    assert "`variance_type` is `analytic`, which stock diffusers does not know" in text
    assert "it samples with `fixed_small`" in text
