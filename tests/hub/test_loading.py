"""Push, then load elsewhere: the same weights and samples; what is refused; what errors say."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from helpers.hubs import running_hub

from ddpm_pipeline import DDPMPipeline, DDPMScheduler

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from helpers.hubs import Hub

NAME = "alice/digits"
PUSH = f"""
import sys, torch
from huggingface_hub import HfApi
from ddpm_pipeline import DDPMPipeline

local = sys.argv[1]
pipe = DDPMPipeline.from_pretrained(local)
first = pipe.push_to_hub({NAME!r}, private=True)
assert not pipe.push_to_hub({NAME!r}).is_new
HfApi().create_tag({NAME!r}, tag="v1")
HfApi().create_repo("alice/empty")
with torch.no_grad():
    pipe.unet.conv_in.weight.mul_(2)
pipe.save_pretrained(local + "-branch")
assert pipe.push_to_hub({NAME!r}, revision="branch").revision == "branch"
pipe.save_pretrained(local + "-main", push_to_hub=True, repo_id={NAME!r}, commit_message="Saved")
"""
# Reads pairs of a name and options, and tells of each what was loaded and what it draws.
LOAD = """
import hashlib, json, os, sys, time

kind, *calls = sys.argv[1:]
if kind == "stock":
    sys.modules["ddpm_pipeline"] = None  # importing it fails
    from diffusers import DiffusionPipeline as Pipeline
else:
    import ddpm_pipeline.hub.loading
    from ddpm_pipeline import DDPMPipeline as Pipeline

    ddpm_pipeline.hub.loading.REQUEST_TIMEOUT = float(os.environ.get("LIMIT", 60))
import torch

for name, options in map(json.loads, calls):
    began = time.monotonic()
    try:
        pipe = Pipeline.from_pretrained(name, **options)
    except Exception as error:
        print(json.dumps([type(error).__name__, str(error), time.monotonic() - began]))
        continue
    pipe.set_progress_bar_config(disable=True)
    weights = hashlib.sha256()
    for key, value in sorted(pipe.unet.state_dict().items()):
        weights.update(key.encode() + value.numpy().tobytes())
    images = pipe(
        batch_size=2, generator=torch.manual_seed(0), num_inference_steps=4, output_type="np"
    ).images
    print(json.dumps([weights.hexdigest(), hashlib.sha256(images.tobytes()).hexdigest()]))
"""


def load(hub: Hub, kind: str, *calls: tuple[object, dict[str, Any]], **client: Any) -> list[Any]:
    """What a new process finds: hashes of weights and images, or what error and after how long."""
    given = [json.dumps([str(name), options]) for name, options in calls]
    return [json.loads(s) for s in hub.python(LOAD, kind, *given, **client).stdout.splitlines()]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusers import UNet2DModel

    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    folder = tmp_path_factory.mktemp("local") / "model"
    DDPMPipeline(unet, DDPMScheduler(timestep_spacing="trailing")).save_pretrained(folder)
    return folder


# Round trips.

REVISIONS: dict[str, dict[str, Any]] = {
    "-main": {},
    "": {"revision": "v1"},
    "-branch": {"revision": "branch"},
}


@pytest.fixture(scope="module")
def pushed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A Hub with three states of a model, also beside it in folders, and an empty repository."""
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        hub.python(PUSH, model)
        yield hub


@pytest.mark.parametrize("kind", ["ours", "stock"])
def test_what_was_pushed_is_loaded_elsewhere(pushed: Hub, model: Path, kind: str) -> None:
    calls = [
        call
        for suffix, options in REVISIONS.items()
        for call in (
            (f"{model}{suffix}", {}),
            (NAME, options),
            (NAME, {**options, "local_files_only": True}),
        )
    ]
    pushed.requests()
    faults = [{"mode": "truncate", "method": "GET", "path": "/_cdn/", "after": 20_000}]
    if kind == "ours":  # stock does not try again
        faults += [{"mode": "status", "method": "GET", "path": f"/{NAME}/resolve/"}]
    pushed.fail(*faults)
    found = load(pushed, kind, *calls, home=f"{kind} home")
    met = [request["fault"] for request in pushed.requests() if "fault" in request]
    assert sorted(met) == sorted(fault["mode"] for fault in faults)
    by_revision = [found[i : i + 3] for i in range(0, len(found), 3)]
    for here, pulled, cached in by_revision:
        assert here == pulled == cached
        assert len(here[0]) == 64
    assert len({here[0] for here, *_ in by_revision}) == 2
    assert by_revision[0] == by_revision[2]


def test_every_push_was_one_commit_with_a_card(pushed: Hub) -> None:
    repo = pushed.repo(NAME)
    titles = [commit["title"] for commit in repo["commits"].values()]
    assert titles == ["initial commit", *["Push with ddpm_pipeline"] * 2, "Saved"]
    assert repo["private"]
    for revision in ("main", "v1", "branch"):
        assert f'from_pretrained("{NAME}")' in pushed.content(NAME, "README.md", revision).decode()


def test_a_private_repository_needs_its_token(pushed: Hub) -> None:
    wrong, none, mine = load(
        pushed,
        "ours",
        (NAME, {}),
        (NAME, {"token": False}),
        (NAME, {"token": "hf_alice"}),
        token="hf_bob",
        home="bob",
    )
    assert len(mine[0]) == 64
    hint = f"cannot load {NAME!r}: there is no such folder and no such repository, or "
    assert wrong[:2] == ["NotOnHubError", hint + "this token does not see it"]
    assert none[1].startswith(hint + "it is private: log in with `hf auth login`")


def test_a_round_trip_by_xet(model: Path, tmp_path: Path) -> None:
    with running_hub(tmp_path, reads_xet=True) as hub:
        code = f"from ddpm_pipeline.hub import push_folder; push_folder({str(model)!r}, {NAME!r})"
        hub.python(code, has_xet=True)
        here, pulled = load(hub, "ours", (model, {}), (NAME, {}), has_xet=True, home="empty")
        paths = {r["path"] for r in hub.requests()}
    assert here == pulled
    assert {f"/api/models/{NAME}/xet-write-token/main"} < paths
    assert [path for path in paths if "/xet-read-token/" in path]
    assert not [path for path in paths if "_lfs" in path or "_cdn" in path]


# Refusals.


UPLOAD_WITH_OTHER_WEIGHTS = """
import sys
from pathlib import Path
from huggingface_hub import HfApi
from safetensors.numpy import load_file, save_file

path = Path(sys.argv[1], "unet/diffusion_pytorch_model.safetensors")
tensors = load_file(path)
rest = {name: tensor for name, tensor in tensors.items() if name != "conv_in.weight"}
more = tensors | {"evil.weight": tensors["conv_in.bias"]}
for name, changed in (("lacking", rest), ("holding", more)):
    for variant in ("", ".fp16"):
        save_file(changed, path.with_suffix(f"{variant}.safetensors"))
    HfApi().create_repo(f"alice/{name}")
    HfApi().upload_folder(repo_id=f"alice/{name}", folder_path=sys.argv[1])
"""
OTHER_WEIGHTS = {
    "lacking": "lacks 1 of them, such as conv_in.weight",
    "holding": "holds 1 that the network has not, such as evil.weight",
}


def test_missing_and_surplus_weights_on_the_hub_are_named(
    hub: Hub, model: Path, tmp_path: Path
) -> None:
    hub.python(UPLOAD_WITH_OTHER_WEIGHTS, shutil.copytree(model, tmp_path / "copy"))
    ways = [{}, {"low_cpu_mem_usage": False}, {"variant": "fp16"}]
    ways.append({"low_cpu_mem_usage": False, "variant": "fp16", "local_files_only": True})
    calls = [(f"alice/{name}", way) for name in OTHER_WEIGHTS for way in ways]
    for (name, way), found in zip(calls, load(hub, "ours", *calls), strict=True):
        kind, message, _ = found
        assert kind == "OSError", (name, way)
        assert message.startswith(f"cannot load {name!r}")
        assert OTHER_WEIGHTS[name.removeprefix("alice/")] in message


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (self.path,)


def bad_models(model: Path, folder: Path) -> dict[str, Path]:
    """Copies of a model that must not be loaded; each makes folder / "ran" if it gets to run."""
    ran = str(folder / "ran")
    folders = {name: folder / name for name in ("pickled", "evil", "pipeline", "component")}
    for path in folders.values():
        shutil.copytree(model, path)
    state = DDPMPipeline.from_pretrained(model).unet.state_dict()
    for name, content in (("pickled", state), ("evil", {"conv_in.weight": Touch(ran)})):
        (folders[name] / "unet/diffusion_pytorch_model.safetensors").unlink()
        torch.save(content, folders[name] / "unet/diffusion_pytorch_model.bin")
    code = f"import os; os.mkdir({ran!r})\nfrom diffusers import "
    (folders["pipeline"] / "own.py").write_text(code + "DDPMPipeline as Own")
    change_index(folders["pipeline"], _class_name=["own", "Own"])
    (folders["component"] / "unet/own.py").write_text(code + "UNet2DModel as Own")
    change_index(folders["component"], unet=["own", "Own"])
    return folders


def change_index(folder: Path, **changes: Any) -> None:
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | changes))


UPLOAD = """
import sys
from huggingface_hub import HfApi

for folder in sys.argv[1:]:
    name = "alice/" + folder.rpartition("/")[2]
    HfApi().create_repo(name)
    HfApi().upload_folder(repo_id=name, folder_path=folder)
"""


def test_pickles_and_code_are_refused_and_not_run(hub: Hub, model: Path, tmp_path: Path) -> None:
    folders = bad_models(model, tmp_path / "bad")
    hub.python(UPLOAD, *folders.values())
    convert = (
        "holds only pickled weights (.bin), which can run code when loaded. If you trust them, "
        "convert them once: DDPMPipeline.from_pretrained('alice/{}', use_safetensors=False)"
        ".save_pretrained(NEW_DIRECTORY)"
    )
    own_code = "asks to run code of its own, which is never done"
    evil = "hold more than weights, which could be code; they were not loaded and nothing in them"
    calls: list[tuple[str, dict[str, Any], str]] = [
        ("pickled", {}, convert.format("pickled")),
        ("pickled", {"use_safetensors": None}, convert.format("pickled")),
        ("evil", {}, convert.format("evil")),
        ("evil", {"use_safetensors": False}, evil),
        ("pipeline", {}, own_code),
        ("component", {}, own_code),
        ("pipeline", {"trust_remote_code": True}, "trust_remote_code must be left out, got True"),
        ("pipeline", {"custom_pipeline": "own"}, "custom_pipeline must be left out, got 'own'"),
    ]
    remote = [(f"alice/{name}", options) for name, options, _ in calls]
    local = [(folders[name], options) for name, options, _ in calls[3:]]
    good = ("alice/pickled", {"use_safetensors": False})
    *found, loaded, here = load(hub, "ours", *remote, *local, good, (model, {}))
    for (kind, said, _), (*_, expected) in zip(found, calls + calls[3:], strict=True):
        assert kind in {"HubError", "ValueError"}
        assert expected in said
        assert "\n" not in said
    assert not (tmp_path / "bad/ran").exists()
    assert loaded == here


def test_the_malicious_pickle_would_run_if_it_were_let(model: Path, tmp_path: Path) -> None:
    folders = bad_models(model, tmp_path / "bad")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(folders["evil"] / "unet/diffusion_pytorch_model.bin")
    assert not (tmp_path / "bad/ran").exists()
    torch.load(folders["evil"] / "unet/diffusion_pytorch_model.bin", weights_only=False)
    assert (tmp_path / "bad/ran").exists()


# Errors.


def test_errors_say_what_is_wrong(pushed: Hub, tmp_path: Path) -> None:
    missing = "there is no such folder and no such repository, or this token does not see it"
    calls: list[tuple[str, dict[str, Any], str]] = [
        (NAME, {"revision": "v2"}, "it has no revision 'v2' (branch, tag or commit)"),
        ("alice/nothing", {}, missing),
        ("nothing", {}, missing),
        (NAME, {"token": "hf_wrong"}, "the token is missing or not valid; log in with `hf auth"),
        ("alice/empty", {}, "there is no file 'model_index.json' in it"),
        (NAME, {"local_files_only": True}, "it is not, or not wholly, in the cache; without"),
        ("a/b/c", {}, "neither a valid local path nor a valid repo id"),
    ]
    pushed.fail({"mode": "hang", "method": "GET", "path": "/alice/slow", "times": 99})
    limit = {"LIMIT": "1"}
    *found, slow = load(
        pushed, "ours", *[call[:2] for call in calls], ("alice/slow", {}), home="x", extra=limit
    )
    pushed.fail()
    late = f"cannot load 'alice/slow': no answer within 1 s from {pushed.url}; try again later"
    assert slow[:2] == ["HubTimeoutError", late]
    assert slow[2] < 5
    for (_, said, _), (_, _, expected) in zip(found, calls, strict=True):
        assert expected in said
        assert "\n" not in said
        assert "hf_" not in said


def test_offline_it_is_loaded_from_the_cache_or_not_at_all(pushed: Hub) -> None:
    code = f"from huggingface_hub import snapshot_download; snapshot_download({NAME!r})"
    pushed.python(code, home="kept")
    kept, missing = load(
        pushed, "ours", (NAME, {}), (NAME, {"revision": "v1"}), home="kept", is_offline=True
    )
    assert len(kept[0]) == 64
    assert missing[:2] == [
        "HubError",
        f"cannot load {NAME!r}: HF_HUB_OFFLINE is set, and it is not, or not wholly, in the cache",
    ]


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("scheduler/scheduler_config.json", {"timestep_spacing": "even"}, "timestep_spacing must"),
        ("scheduler/scheduler_config.json", {"beta_end": 7.0}, r"betas must lie in \(0, 1\]"),
        ("unet/config.json", {"down_block_types": ["NoBlock", "NoBlock"]}, "NoBlock does not"),
        ("unet/config.json", {"block_out_channels": [16, 32]}, "expected shape"),
    ],
)
def test_what_does_not_fit_in_a_folder_names_the_folder(
    tiny_unet: Callable[..., Any],
    tmp_path: Path,
    part: str,
    change: dict[str, Any],
    said: str,
) -> None:
    folder = tmp_path / "model"
    DDPMPipeline(tiny_unet(), DDPMScheduler(20)).save_pretrained(folder)
    config = json.loads((folder / part).read_text())
    (folder / part).write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=rf"^cannot load '.*model': .*{said}"):
        DDPMPipeline.from_pretrained(folder)
