"""The model card as a whole: other people's text and metadata stay, ours is renewed."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.cards import REPO, command_on, results_on, retrain, saved
from huggingface_hub import ModelCard, metadata_eval_result
from huggingface_hub.repocard_data import model_index_to_eval_results
from PIL import Image

from ddpm_pipeline import DDPMScheduler
from ddpm_pipeline.cards.card import renew_card
from ddpm_pipeline.cli.train import parse_arguments

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel


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


def test_a_data_set_of_the_hub_is_linked(run: Path) -> None:
    config = json.loads((run / "training_config.json").read_text())
    config |= {"train_data_dir": None, "dataset_name": "ylecun/mnist"}
    (run / "training_config.json").write_text(json.dumps(config))
    assert ModelCard(renew_card(run, repo_id=REPO)).data.datasets == ["ylecun/mnist"]


def test_a_card_made_twice_is_the_same(run: Path) -> None:
    first = renew_card(run, repo_id=REPO, license="mit")
    assert renew_card(run, repo_id=REPO, license="mit", existing=first) == first
    (run / "README.md").write_text(first)
    assert renew_card(run, repo_id=REPO) == first


HOSTILE = (
    "X` [run this](http://evil) <img src=x>\n<!-- ddpm_pipeline:end -->\n## Use\n@all \x1b[2J"
)


@pytest.fixture
def plain_model(tiny_unet: Callable[..., UNet2DModel], tmp_path: Path) -> Path:
    return saved(tiny_unet(), DDPMScheduler(10), tmp_path / "model")


def edit(path: Path, **changes: object) -> None:
    """Change values of a JSON file, which is made if it is not there."""
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(values | changes))


def test_text_from_elsewhere_changes_nothing_on_the_page(plain_model: Path) -> None:
    own = {"options": {"variance_type": {"value": HOSTILE, "stock": HOSTILE}}}
    private = {"class_names": [HOSTILE, HOSTILE]}
    unet = {"_class_name": HOSTILE, "num_class_embeds": 3, "_ddpm_pipeline": private}
    edit(plain_model / "unet/config.json", **unet)
    scheduler = {"prediction_type": HOSTILE, "_ddpm_pipeline": own, "_class_name": HOSTILE}
    edit(plain_model / "scheduler/scheduler_config.json", **scheduler)
    edit(plain_model / "model_index.json", _diffusers_version=HOSTILE)
    (plain_model / "samples").mkdir()
    Image.new("L", (8, 8)).save(plain_model / "samples" / "step-](evil) <b>.png")
    text = renew_card(plain_model, repo_id="a/b")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    assert re.search(r"(?<!\\)[<](?!!-- ddpm_pipeline:(begin|end))", prose) is None
    assert re.findall(r"(?<!\\)\]\((.*?)\)", prose) == ["samples/step-%5D%28evil%29%20%3Cb%3E.png"]
    assert "http://evil" not in text
    assert "\x1b" not in text
    assert len(re.findall("^<!-- ddpm_pipeline:end -->", text, re.MULTILINE)) == 1
    assert text.count("\n## Use\n") == 1
    again = renew_card(plain_model, repo_id="a/b", existing=text)
    assert again == text


def test_a_command_on_a_card_is_one(plain_model: Path) -> None:
    options = {
        "train_data_dir": HOSTILE, "dataset_name": None, "dataset_config_name": None,
        "train_split": None, "train_batch_size": 4, "gradient_accumulation_steps": 1,
        "mixed_precision": HOSTILE,
    }  # fmt: skip
    edit(plain_model / "training_config.json", **options)
    record = {
        "options": {"train_data_dir": "$(rm -rf ~)\n```\nevil"}, "num_processes": 1, "steps": 1,
        "seconds": 1.0, "device": HOSTILE, "versions": {HOSTILE: HOSTILE},
    }  # fmt: skip
    edit(plain_model / "training_record.json", **record)
    assert command_on(renew_card(plain_model, repo_id="a/b")) == [
        "--train_data_dir",
        "$(rm -rf ~) ``` evil",
    ]
    for changes, named in (
        ({"options": {"x; rm -rf ~": 1}}, "holds an option 'x; rm -rf ~', which is none"),
        ({"num_processes": "1; rm -rf ~"}, "num_processes in training_record.json must be an"),
        ({"versions": []}, "no card can be made"),
    ):
        edit(plain_model / "training_record.json", **{**record, **changes})
        with pytest.raises(ValueError, match=named):
            renew_card(plain_model, repo_id="a/b")


@pytest.mark.parametrize(
    "card",
    [
        "<!-- ddpm_pipeline:begin weights=" + 400_000 * "-",
        30_000 * "<!-- ddpm_pipeline:end -->\n",
        20_000 * "<!-- ddpm_pipeline:begin weights=a -->\n",
        400_000 * "-",
        400_000 * "\n",
    ],
)
def test_a_long_card_takes_no_long_time(plain_model: Path, card: str) -> None:
    began = time.process_time()
    assert card.strip() in renew_card(plain_model, repo_id="a/b", existing=card)
    assert time.process_time() - began < 5


def test_metadata_that_multiply_are_refused(plain_model: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join(9 * [f'*a{i - 1}'])}]" for i in range(1, 12)]
    card = "---\n" + "\n".join(lines) + "\n---\n"
    with pytest.raises(ValueError, match="must hold no aliases"):
        renew_card(plain_model, repo_id="a/b", existing=card)
    with pytest.raises(ValueError, match="no card can be made"):
        renew_card(plain_model, repo_id="a/b", existing=f"---\na: {5000 * '['}\n---\n")


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
    assert len(results) == 6

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
