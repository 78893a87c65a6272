"""How what b3da084 left is gone on with: the same for make_saved.py, there, and the tests, here.

Each function takes a folder that holds a copy of ``saved/``, works in it, and returns plain JSON
values. Names are those that the package promises to keep.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import torch
from diffusers import UNet2DModel
from PIL import Image
from safetensors.torch import load_file

from ddpm_pipeline import DDPMPipeline, TrainingConfig, calibrate, train, variational_bound
from ddpm_pipeline.data import open_images

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor

    from ddpm_pipeline.data import ImageData

SAVED = Path(__file__).parent / "saved"
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "block_out_channels": [4, 4],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 2,
    "attention_head_dim": 4,
    "dropout": 0.1,
}
RUNS: dict[str, dict[str, Any]] = {
    "run_adamw": {
        "train_data_dir": "images.npy",
        "model_config_name_or_path": "unet.json",
        "optimizer": "adamw",
        # So large that a gradient of nothing but rounding stays one: other processors agree.
        "adam_epsilon": 1e-4,
        "ddpm_num_steps": 20,
        "mixed_precision": "no",
    },
    "run_muon": {
        "train_data_dir": "photos",
        "model_config_name_or_path": "unet_of_classes.json",
        "class_conditional": True,
        "validation_size": 4,
        "optimizer": "muon",
        "ema_decay": (0.5, 0.9),
        "timestep_sampler": "importance",
        "ddpm_num_steps": 4,  # past ten losses of each timestep at the checkpoint
        "mixed_precision": "bf16",
    },
}
COMMANDS: dict[str, list[str]] = {
    "bound": ["--num_timestep_samples", "3", "--batch_size", "4"],
    "calibrate": ["--num_forwards", "200", "--batch_size", "2", "--num_inference_steps", "4"],
}
STATES = {"bound": "bound.state", "calibrate": "calibration.state"}


# Whether numbers may be expected to be the same to the bit.


@cache
def machine() -> dict[str, str]:
    """What the last bits of floating-point numbers depend on, with a sample of them."""
    return {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "probe": _probe(),
    }


def _probe() -> str:
    """A hash of what stock networks and functions give here, none of them this package's."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DModel(**UNET)
        optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-2)
        for dtype in (torch.float32, torch.bfloat16):
            for count in (8, 2):
                with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
                    x, t = torch.randn(count, 1, 8, 8), torch.arange(count)
                    unet(x, t).sample.float().square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
    x = torch.linspace(0.01, 3, 100, dtype=torch.float64)
    functions = (torch.exp, torch.log1p, torch.cos, torch.special.log_ndtr)
    table = torch.stack([function(x) for function in functions])
    return tensors_hash(unet.state_dict() | {"table": table})


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {(*tensor.shape,)}\n".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def json_hash(values: object) -> str:
    """SHA-256 of JSON values, as Python writes them."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


# Models.


def drawn(folder: Path, name: str, **options: Any) -> dict[str, Any]:
    """Four images of a saved model in five steps, as hexadecimal bytes, and what drew them."""
    pipeline = DDPMPipeline.from_pretrained(folder / name)
    pipeline.set_progress_bar_config(disable=True)
    timesteps: list[int] = []
    images = pipeline(
        4,
        torch.Generator().manual_seed(0),
        num_inference_steps=5,
        output_type="np",
        callback_on_step_end=lambda _pipe, _i, t, _tensors: timesteps.append(int(t)),
        **options,
    ).images
    return {
        "weights": tensors_hash(pipeline.unet.state_dict()),
        "timesteps": timesteps,
        "pixels": (255 * images).round().astype(np.uint8).tobytes().hex(),
    }


# Data.


def in_model_range(data: ImageData) -> tuple[Tensor, Tensor | None]:
    """All images in [-1, 1], and their labels."""
    images, labels = data.batch(range(len(data)))
    return images.float() * 2 / 255 - 1, labels


def open_photos(folder: Path, cache_dir: Path) -> ImageData:
    """The folder of image files with its classes."""
    return open_images(
        folder / "photos", resolution=8, labels=True, cache_dir=cache_dir, progress=False
    )


# Runs.


def training_config(folder: Path, name: str) -> TrainingConfig:
    """A run of RUNS in folder/name, on the data and with the network of the folder."""
    options = dict(RUNS[name])
    for key in ("train_data_dir", "model_config_name_or_path"):
        options[key] = str(folder / options[key])
    return TrainingConfig(
        **options,
        output_dir=str(folder / name),
        cache_dir=str(folder / "cache"),
        resolution=8,
        random_flip=True,
        max_train_steps=12,
        train_batch_size=8,
        learning_rate=1e-2,
        lr_warmup_steps=2,
        logging_steps=1,
        validation_steps=6,
        checkpointing_steps=4,
        checkpoints_total_limit=1,
        save_images_steps=6,
        eval_batch_size=2,
        ddpm_num_inference_steps=2,
    )


def go_on_training(folder: Path, name: str) -> dict[str, Any]:
    """All that is left by a run that is over; hashes of what another processor rounds."""
    config = training_config(folder, name)
    result = train(config)
    run = folder / name
    (checkpoint,) = (run / "checkpoints").iterdir()
    grid = _in_one_layout(np.asarray(Image.open(run / "samples" / "step-0000012.png")))
    lines = (run / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    for entry in metrics:
        entry.pop("images_per_second", None)
    return {
        "finished": [result.finished, result.global_step, checkpoint.name],
        "weights": tensors_hash(final_weights(run)),
        "checkpoint": {
            path.stem: tensors_hash(load_file(path))
            for path in sorted(checkpoint.glob("*.safetensors"))
        },
        "samples": hashlib.sha256(grid.tobytes()).hexdigest(),
        "metrics": metrics,
    }


def _in_one_layout(grid: np.ndarray) -> np.ndarray:
    """The two images of a grid side by side, as they were before classes had rows of their own."""
    if grid.shape[0] < grid.shape[1]:
        return grid
    side = grid.shape[1] - 2
    beside = np.full((side + 2, 2 * side + 3, *grid.shape[2:]), grid[0, 0], grid.dtype)
    for i in range(2):
        start = 1 + i * (side + 1)
        beside[1:-1, start : start + side] = grid[start : start + side, 1:-1]
    return beside


def final_weights(run: Path) -> dict[str, Tensor]:
    """The saved model's."""
    return load_file(run / "unet" / "diffusion_pytorch_model.safetensors")


# Bounds and calibrations.


def measure_bound(folder: Path, *, stop_after: int | None = None) -> dict[str, Any]:
    """The bound of the calibrated model, or the start of it: its state file stays."""
    pipeline = DDPMPipeline.from_pretrained(folder / "calibrated")
    x_0, labels = in_model_range(open_photos(folder, folder / "cache"))
    batches = list(zip(x_0.split(4), labels.split(4), strict=True))
    report = variational_bound(
        pipeline.unet,
        pipeline.scheduler,
        batches if stop_after is None else stopping(batches, stop_after),
        num_timestep_samples=3,
        batch_size=2,
        state_file=folder / "half_done" / "bound.state",
    )
    return report.to_dict()


def measure_calibration(folder: Path, *, stop_after: int | None = None) -> dict[str, Any]:
    """A calibration of the plain model for a density, or the start of it."""
    pipeline = DDPMPipeline.from_pretrained(folder / "plain")
    x_0 = torch.from_numpy(np.load(folder / "images.npy")[:, None]).float() * 2 / 255 - 1
    batches = list(x_0.split(2))
    # The run that goes on takes the seed of the one that was stopped.
    seeded = {} if stop_after is None else {"generator": torch.Generator().manual_seed(3)}
    calibration = calibrate(
        pipeline.unet,
        pipeline.scheduler,
        batches if stop_after is None else stopping(4 * batches, stop_after),
        num_forwards=180,
        decoder="continuous",
        state_file=folder / "half_done" / "calibration.state",
        **seeded,
    )
    return calibration.to_dict()


def stopping(batches: Iterable[Any], after: int) -> Iterator[Any]:
    """Some of the batches, and then what Control-C does."""
    from time import sleep

    for number, batch in enumerate(batches):
        if number == after:
            raise KeyboardInterrupt
        sleep(0.5 if number < 5 else 0)  # a state file is not written again at once
        yield batch


def ddpm(*argv: str) -> int:
    """The command line, wherever pyproject.toml says it is."""
    script = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["scripts"]["ddpm"]
    module, _, function = script.partition(":")
    return getattr(import_module(module), function)(argv)


def command(folder: Path, name: str) -> int:
    """``ddpm bound`` or ``ddpm calibrate`` of the plain model, which keeps its state there."""
    data = str(folder / "images.npy")
    return ddpm(name, str(folder / "plain"), "--data", data, *COMMANDS[name])


def go_on_with_command(folder: Path, name: str) -> dict[str, Any]:
    """What a command writes that finds its half-done state in the folder of the model."""
    state = folder / "plain" / STATES[name]
    (folder / "half_done" / f"command_{state.name}").rename(state)
    assert command(folder, name) == 0
    assert not state.exists()
    written = STATES[name].replace(".state", ".json")
    values = json.loads((folder / "plain" / written).read_text(encoding="utf-8"))
    values.pop("versions", None)
    # Reports say more by now: the seed that was given, and what the model samples with.
    values |= {"seed": values.pop("noise_seed")} if "noise_seed" in values else {}
    for added in ("variance_type", "timestep_spacing"):
        values.get("report", {}).pop(added, None)
    return values
