"""A model folder is data: code that comes with one is never run."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.hostile_models import (
    CODE_CARRIERS,
    LIBRARY,
    LOADS_ANYWAY,
    Carrier,
    index_of_weights_as_a_pickle,
)
from safetensors.torch import save_file

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.evaluation import load_features

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel


@pytest.fixture
def carrier(
    tiny_unet: Callable[..., UNet2DModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Carrier:
    """A model folder, and beside it a library with code, which Python would find."""
    folder = tmp_path / "here" / "model"
    DDPMPipeline(tiny_unet(), DDPMScheduler(10)).save_pretrained(folder)
    made = Carrier(folder)
    made.script(f"../{LIBRARY}.py")
    monkeypatch.syspath_prepend(tmp_path / "here")
    return made


@pytest.mark.parametrize("prepare", CODE_CARRIERS, ids=lambda prepare: prepare.__name__)
def test_no_code_of_a_model_is_run(carrier: Carrier, prepare: Callable[[Carrier], dict]) -> None:
    options = prepare(carrier) or {}
    if prepare in LOADS_ANYWAY:
        DDPMPipeline.from_pretrained(carrier.folder, **options)
    else:
        with pytest.raises((ValueError, OSError)):
            DDPMPipeline.from_pretrained(carrier.folder, **options)
    assert not carrier.mark.exists()
    assert LIBRARY not in sys.modules


def test_the_carriers_would_leave_their_mark(carrier: Carrier) -> None:
    import pickle

    carrier.pickled("x.bin")
    pickle.loads((carrier.folder / "x.bin").read_bytes())
    assert carrier.mark.exists()
    carrier.mark.unlink()
    __import__(LIBRARY)
    del sys.modules[LIBRARY]
    assert carrier.mark.exists()


def test_an_index_that_names_a_pickle_says_so(carrier: Carrier) -> None:
    index_of_weights_as_a_pickle(carrier)
    save_file({}, carrier.folder / "unet" / "other.safetensors")
    with pytest.raises(ValueError, match=r"index\.json names 'x\.bin', which is no \.safetensors"):
        DDPMPipeline.from_pretrained(carrier.folder)


def test_features_run_no_code_whatever_the_user_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "CODE_RAN"
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "evil.py").write_text(
        f"open({str(mark)!r}, 'w').write('x')\n"
        "from transformers import PreTrainedModel, PretrainedConfig\n"
        "class C(PretrainedConfig):\n    model_type = 'evil'\n"
        "class E(PreTrainedModel):\n    config_class = C\n"
    )
    auto_map = {"AutoConfig": "evil.C", "AutoModel": "evil.E"}
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    with pytest.raises(ValueError, match="features="):
        load_features(str(folder))
    assert not mark.exists()


def test_features_of_pickled_weights_are_refused(tmp_path: Path) -> None:
    import torch
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4
    )
    model = Dinov2Model(config)
    config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": 8, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    with pytest.raises(ValueError, match="safetensors"):
        load_features(str(tmp_path))


def test_a_checkpoint_with_a_pickle_in_it_is_refused(carrier: Carrier, tmp_path: Path) -> None:
    from compatibility import saved_recipes
    from helpers.manifests import sealed

    from ddpm_pipeline.training.storage.export import open_checkpoint

    path = tmp_path / "run" / "checkpoints" / "step-0000007"
    shutil.copytree(saved_recipes.SAVED / "run_adamw" / "checkpoints" / path.name, path)
    carrier.pickled("x")
    shutil.copy(carrier.folder / "x", path / "model.safetensors")
    sealed(path)
    with pytest.raises((ValueError, OSError), match=r"model\.safetensors"):
        open_checkpoint(path)
    assert not carrier.mark.exists()
