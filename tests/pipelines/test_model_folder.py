"""What a saved model names and asks for is looked at before it is loaded, its weights after."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch
from diffusers import ModelMixin, UNet2DModel
from safetensors.torch import load_file, save_file

from ddpm_pipeline import DDPMPipeline, DDPMScheduler

if TYPE_CHECKING:
    from collections.abc import Callable

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(tiny_unet: Callable[..., UNet2DModel], tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    DDPMPipeline(tiny_unet(), DDPMScheduler(10)).save_pretrained(folder)
    return folder


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("is_meta", [True, False])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("conv_in.weight"), "lacks 1 of them, such as conv_in.weight"),
        (
            lambda t: t.update({"evil.weight": torch.zeros(1)}),
            "holds 1 that the network has not, such as evil.weight",
        ),
    ],
)
def test_missing_and_surplus_weights_are_named(
    model: Path, is_meta: bool, change: Callable[[dict], object], said: str
) -> None:
    tensors = load_file(model / WEIGHTS)
    change(tensors)
    save_file(tensors, model / WEIGHTS)
    with pytest.raises(OSError, match=said):
        DDPMPipeline.from_pretrained(model, low_cpu_mem_usage=is_meta)


def test_shards_are_compared_too(tiny_unet: Callable[..., UNet2DModel], tmp_path: Path) -> None:
    pipe = DDPMPipeline(tiny_unet(), DDPMScheduler(10))
    pipe.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("unet/*-of-*.safetensors"))) > 1
    DDPMPipeline.from_pretrained(tmp_path)
    shard = min(tmp_path.glob("unet/*-of-*.safetensors"))
    tensors = load_file(shard)
    name = min(tensors)
    tensors.pop(name)
    save_file(tensors, shard)
    with pytest.raises(OSError, match=name):
        DDPMPipeline.from_pretrained(tmp_path, low_cpu_mem_usage=False)


PICKLED = "unet/diffusion_pytorch_model.bin"


def as_pickle(model: Path) -> None:
    torch.save(load_file(model / WEIGHTS), model / PICKLED)


def as_variant(model: Path) -> None:
    (model / WEIGHTS).rename((model / WEIGHTS).with_suffix(".fp16.safetensors"))


def beside_a_variant(model: Path) -> None:
    """The damaged file is the one without a variant."""
    pipe = DDPMPipeline.from_pretrained(model, variant=None, low_cpu_mem_usage=False)
    pipe.unet.save_pretrained(model / "unet", variant="fp16")


@pytest.mark.parametrize("is_meta", [True, False])
@pytest.mark.parametrize(
    ("store", "options", "file"),
    [
        (as_pickle, {"use_safetensors": False}, PICKLED),
        (as_variant, {"variant": "fp16"}, "unet/diffusion_pytorch_model.fp16.safetensors"),
        (beside_a_variant, {}, WEIGHTS),
        (as_pickle, {}, WEIGHTS),
    ],
)
def test_the_file_that_is_loaded_is_the_one_that_is_looked_at(
    model: Path, store: Callable, options: dict[str, object], file: str, is_meta: bool
) -> None:
    store(model)
    DDPMPipeline.from_pretrained(model, low_cpu_mem_usage=is_meta, **options)
    is_pickle = file.endswith(".bin")
    tensors = torch.load(model / file, weights_only=True) if is_pickle else load_file(model / file)
    tensors["evil.weight"] = tensors.pop("conv_in.weight")
    (torch.save if is_pickle else save_file)(tensors, model / file)
    with pytest.raises(OSError, match=r"lacks 1 of them, such as conv_in\.weight"):
        DDPMPipeline.from_pretrained(model, low_cpu_mem_usage=is_meta, **options)


def test_shards_of_a_variant_are_compared(
    tiny_unet: Callable[..., UNet2DModel], tmp_path: Path
) -> None:
    pipe = DDPMPipeline(tiny_unet(), DDPMScheduler(10))
    pipe.save_pretrained(tmp_path, max_shard_size="10KB", variant="fp16")
    DDPMPipeline.from_pretrained(tmp_path, variant="fp16")
    shard = min(tmp_path.glob("unet/*fp16-*.safetensors"))
    tensors = load_file(shard)
    save_file({**tensors, "evil.weight": torch.zeros(1)}, shard)
    with pytest.raises(OSError, match=r"holds 1 that the network has not, such as evil\.weight"):
        DDPMPipeline.from_pretrained(tmp_path, variant="fp16", low_cpu_mem_usage=False)


def test_names_of_old_versions_of_diffusers_are_known(model: Path) -> None:
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors, renamed = load_file(model / WEIGHTS), {}
    for name, value in tensors.items():
        old = name
        for part, before in former.items():
            old = old.replace(f".{part}.", f".{before}.")
        renamed[old] = value
    assert renamed.keys() != tensors.keys()
    save_file(renamed, model / WEIGHTS)
    unet = DDPMPipeline.from_pretrained(model).unet
    torch.testing.assert_close(dict(unet.state_dict()), tensors, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        ("unet/config.json", {"layers_per_block": 10**6}, r"unet/config\.json: layers_per_block"),
        ("unet/config.json", {"sample_size": 10**7}, r"unet/config\.json: sample_size"),
        (
            "scheduler/scheduler_config.json",
            {"num_train_timesteps": 10**7},
            r"scheduler_config\.json: num_train_timesteps must be an integer from 1 to 100000",
        ),
        (
            "scheduler/scheduler_config.json",
            {"num_train_timesteps": True},
            r"scheduler_config\.json: num_train_timesteps",
        ),
        ("model_index.json", {".": ["diffusers", "X"]}, r"model_index\.json names a part '\.'"),
        ("model_index.json", {"../x": ["diffusers", "X"]}, r"names a part '\.\./x'"),
        ("model_index.json", {"unet": ["diffusers"]}, "unet in model_index.json must be a lib"),
        ("model_index.json", {"unet": ["diffusers", 3]}, "unet in model_index.json must be a lib"),
        ("model_index.json", {"unet": ["antigravity", "X"]}, "of the library 'antigravity'"),
        ("model_index.json", {"scheduler": ["antigravity", "DDPMScheduler"]}, "antigravity"),
    ],
)
def test_what_no_model_asks_for_is_refused_at_once(
    model: Path, file: str, changes: dict[str, object], named: str
) -> None:
    edit(model / file, **changes)
    began = time.process_time()
    with pytest.raises(ValueError, match=named):
        DDPMPipeline.from_pretrained(model)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("content", ["[]", "{", "", "3", 100_000 * "["])
@pytest.mark.parametrize("file", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_config_that_is_no_object_is_named(model: Path, file: str, content: str) -> None:
    (model / file).write_text(content)
    with pytest.raises(ValueError, match=Path(file).name):
        DDPMPipeline.from_pretrained(model)


def test_a_networks_library_that_the_user_imported_is_taken(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(UNet2DModel):
        __module__ = "mine.networks"

    mine = ModuleType("mine")
    mine.ModelMixin, mine.Mine = ModelMixin, Mine
    monkeypatch.setitem(sys.modules, "mine", mine)
    edit(model / "model_index.json", unet=["mine", "Mine"])
    assert type(DDPMPipeline.from_pretrained(model).unet) is Mine
