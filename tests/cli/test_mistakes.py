"""Mistakes in options: what was meant, and what is allowed, in a few words."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import pytest

from ddpm_pipeline.calibration import CalibrateConfig
from ddpm_pipeline.cli.arguments import parse
from ddpm_pipeline.cli.mistakes import nearest, option_names
from ddpm_pipeline.cli.push import PushArguments
from ddpm_pipeline.cli.sample import SampleArguments
from ddpm_pipeline.evaluation import EvaluateConfig
from ddpm_pipeline.likelihood import BoundConfig
from ddpm_pipeline.training import TrainingConfig

# What is typed, and what is meant by it; "-" for what no option is near to.
TYPED: dict[type, str] = {
    TrainingConfig: """
        resolutionn resolution      lerning_rate learning_rate     lr learning_rate
        batch_size train_batch_size batchsize train_batch_size
        trian_batch_size train_batch_size
        epochs num_epochs           max_steps max_train_steps      data train_data_dir
        dataset dataset_name        output output_dir              out output_dir
        seeed seed                  warmup lr_warmup_steps         mixed_precison mixed_precision
        resume resume_from_checkpoint                              val_split validation_split
        classes num_classes         ema_max_dcay ema_decay         horizontal_flip -
        gradient_acumulation gradient_accumulation_steps           fp16 -
    """,
    SampleArguments: """
        n -                         num_image num_images           steps num_inference_steps
        inference_steps num_inference_steps                        class class_labels
        class_label class_labels    guidance guidance_scale        cfg -
        outptu output               bs batch_size                  output_dir output
    """,
    BoundConfig: """
        output output_dir           n_images num_images            batch batch_size
        samples num_timestep_samples                               dataset dataset_config_name
    """,
    EvaluateConfig: """
        reference num_reference     kid_subset kid_subsets         featurs features
        sample samples              steps num_inference_steps      fid -
    """,
    CalibrateConfig: """
        variance variance_type      forwards num_forwards          feature features
    """,
    PushArguments: """
        repo repo_id                privat private                 message commit_message
        token -
    """,
}


def test_the_option_that_was_meant_is_named() -> None:
    wrong = []
    for arguments, table in TYPED.items():
        words = table.split()
        known = [f"--{field.name}" for field in fields(arguments)] + ["--help"]
        for typed, meant in zip(words[::2], words[1::2], strict=True):
            near = nearest(f"--{typed}", known)
            if near != (None if meant == "-" else f"--{meant}"):
                wrong.append((typed, meant, near))
    assert wrong == []
    assert sum(len(table.split()) // 2 for table in TYPED.values()) >= 40


@dataclass(frozen=True, kw_only=True)
class Part:
    width: int = 1
    """How wide."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every type that there is."""

    part: Part
    model: str
    """Needed."""
    count: int | None = None
    """Whole."""
    share: float = 0.5
    """Real."""
    decay: float | Literal["auto"] = "auto"
    """Real, or a word."""
    kind: Literal["red", "green"] = "red"
    """A word."""
    steps: tuple[int, ...] = (1,)
    """Several."""

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ValueError(f"share must be at most 1, got {self.share}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "missing: --model"),
        ("--model m --count many", "--count must be an integer or None, got 'many'"),
        ("--model m --count 1.5", "--count must be an integer or None, got '1.5'"),
        ("--model m --width x", "--width must be an integer, got 'x'"),
        ("--model m --share much", "--share must be a number, got 'much'"),
        ("--model m --decay fast", "--decay must be a number or 'auto', got 'fast'"),
        ("--model m --kind blue", "--kind must be one of red, green, got 'blue'"),
        ("--model m --share 2", "--share must be at most 1, got 2.0"),
        ("--model m --count", "--count needs a value"),
        ("--model m --kinds red", "Unrecognized options: --kinds (did you mean --kind?)"),
        ("--model m more", "Unrecognized options: more"),
        ("--model m --steps 1 a", "--steps"),
    ],
)
def test_a_mistake_is_a_plain_sentence(
    capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(Options, line.split(), prog="ddpm test")
    printed = capsys.readouterr().err
    assert printed.startswith(f"ddpm test: error: {said}")
    assert printed.endswith("; see ddpm test --help\n")
    assert "instantiated" not in printed


def test_nested_options_are_options() -> None:
    assert [*option_names(Options)][:3] == ["width", "model", "count"]
