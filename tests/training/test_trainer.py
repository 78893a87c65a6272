"""Training, and what diffusers' training example gets wrong.

Each of its defects has a test named after it, ``test_stock_...``: here, or by what it is about,
in test_checkpointing, test_losses, test_training_bound and test_training_push.
"""

from __future__ import annotations

import ast
import copy
import json
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from diffusers import DDPMPipeline as StockPipeline
from helpers.calibrations import calibration_from_errors
from helpers.training_runs import TINY_UNET, blobs, image_data, outcome, run_forked, tiny_config
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

import ddpm_pipeline
from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.data.loader import ImageLoader
from ddpm_pipeline.evaluation.config import EvaluateConfig
from ddpm_pipeline.evaluation.saved_model import evaluate
from ddpm_pipeline.evaluation.small_features import SmallFeatures, SmallFeaturesConfig
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.learner import Learner
from ddpm_pipeline.training.resolving import resolve
from ddpm_pipeline.training.run import dry_run, train
from ddpm_pipeline.training.setup import make_scheduler, make_unet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ddpm_pipeline.data.images import Batch


pytestmark = pytest.mark.usefixtures("random_last_layers")


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def a_trainer(folder: Path, **options: object) -> Learner:
    config = tiny_config(folder, **options)
    config = resolve(config, length=40, world_size=1, device=torch.device("cpu"))
    torch.manual_seed(0)
    classes = 3 if config.class_conditional else None
    unet = make_unet(config, 1, classes)
    return Learner(config, make_scheduler(config).schedule, unet, Accelerator(cpu=True))


def batches(trainer: Learner, labels: list[int] | None = None) -> Iterator[Batch]:
    return ImageLoader(
        image_data(labels=labels), batch_size=trainer.config.train_batch_size, seed=0
    )


# A run, from the config to the model.


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config(folder, validation_size=8, logger="tensorboard", max_train_steps=10)
    result = train(config)
    assert result.finished
    assert result.global_step == 10
    assert result.output_dir == folder / "run"
    assert result.loss == metrics(folder / "run")[-2]["loss"]
    return folder / "run"


def test_a_run_leaves_a_model_that_stock_diffusers_opens(a_run: Path) -> None:
    stock = StockPipeline.from_pretrained(a_run)
    ours = DDPMPipeline.from_pretrained(a_run)
    assert ours.scheduler.config.timestep_spacing == "trailing"
    assert ours.scheduler.config.rescale_betas_zero_snr
    for a, b in zip(ours.unet.parameters(), stock.unet.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_leaves_its_options_grids_metrics_and_logs(a_run: Path) -> None:
    config = TrainingConfig.from_json(a_run / "training_config.json")
    assert config.max_train_steps == 10
    assert [entry["step"] for entry in metrics(a_run)] == [5, 8, 10, 10]
    with Image.open(a_run / "samples" / "step-0000010.png") as grid:
        assert grid.mode == "L"
        assert grid.size == (19, 10)  # two images of 8, three gaps of 1
    assert list((a_run / "logs").rglob("events.out.tfevents.*"))
    assert not [path for path in a_run.iterdir() if path.name.startswith(".")]


def test_no_local_path_is_in_what_a_run_leaves(a_run: Path) -> None:
    for path in [*a_run.glob("*.json*"), *a_run.glob("*/*.json"), *a_run.rglob("state.json")]:
        assert str(a_run.parent) not in path.read_text(), path
        assert str(Path.home()) + "/" not in path.read_text(), path


def test_tensorboard_has_the_losses_and_the_grid(a_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(a_run / "logs" / "ddpm"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [5, 10]
    assert [event.step for event in events.Scalars("validation_loss")] == [8, 10]
    assert [event.step for event in events.Images("samples")] == [6, 10]


def test_training_learns_the_data(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        max_train_steps=60,
        train_batch_size=8,
        learning_rate=1e-2,
        logging_steps=20,
        save_images_steps=0,
        checkpointing_steps=0,
    )
    train(config)
    first, *_, last = metrics(tmp_path / "run")
    assert last["loss"] < 0.7 * first["loss"]


# What diffusers' example gets wrong.


def test_stock_has_no_seed(tmp_path: Path) -> None:
    options = {"max_train_steps": 4, "save_images_steps": 0}
    seeds = enumerate([3, 3, 4])
    runs = [tiny_config(tmp_path / str(i), seed=seed, **options) for i, seed in seeds]
    for config in runs:
        train(config)
    a, b, c = (outcome(Path(config.output_dir))["model"] for config in runs)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not any(torch.equal(a[name], c[name]) for name in a if a[name].ndim > 1)


def test_stock_resumes_with_other_data(tmp_path: Path) -> None:
    """The order of the data goes on where it was: each image once in an epoch, resumed or not."""
    loader = ImageLoader(image_data(), batch_size=4, seed=0)
    first = [next(loader).images for _ in range(4)]
    resumed = ImageLoader(image_data(), batch_size=4, seed=0)
    resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    epoch = torch.cat(first + [next(resumed).images for _ in range(6)])
    expected = torch.from_numpy(blobs())
    assert sorted(map(bytes, epoch.numpy())) == sorted(map(bytes, expected.numpy()))


@pytest.mark.parametrize(("accumulation", "processes"), [(4, 1), (1, 2)])
def test_stock_learning_rate_never_finishes(
    tmp_path: Path, accumulation: int, processes: int
) -> None:
    config = tiny_config(
        tmp_path,
        gradient_accumulation_steps=accumulation,
        train_batch_size=2,
        max_train_steps=12,
        lr_warmup_steps=3,
        learning_rate=1e-3,
        lr_scheduler="linear",
        logging_steps=1,
        save_images_steps=0,
        checkpointing_steps=0,
    )
    assert run_forked(config, processes=processes) == [0] * processes
    rates = [entry["learning_rate"] for entry in metrics(tmp_path / "run")]
    assert rates.index(max(rates)) == 3  # not at 3 x 4, nor at 3 / 2
    assert max(rates) == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-3 / 9)  # one step from zero


def test_stock_adds_no_noise_in_half_precision(tmp_path: Path) -> None:
    """At t = 0 a network of bf16 sees noise of the right size."""
    trainer, seen = a_trainer(tmp_path, mixed_precision="bf16"), []

    def network(x_t: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor]:
        seen.append(x_t)
        return (x_t.bfloat16(),)

    x_0 = torch.full((64, 1, 8, 8), 0.5)
    eps = torch.randn(64, 1, 8, 8)
    t = torch.zeros(64, dtype=torch.int64)
    trainer.losses(x_0, None, eps, t, network)
    alpha_bar = trainer.schedule.alpha_bar(0).item()
    noise = seen[0] - alpha_bar**0.5 * x_0
    torch.testing.assert_close(noise, (1 - alpha_bar) ** 0.5 * eps, rtol=1e-2, atol=1e-4)


def test_stock_previews_with_dropout_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    call = DDPMPipeline.__call__

    def noting(self: DDPMPipeline, *args: object, **kwargs: object) -> object:
        modes.append(self.unet.training)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(DDPMPipeline, "__call__", noting)
    trained = []
    update = Learner.update
    monkeypatch.setattr(
        Learner,
        "update",
        lambda self, *a: (trained.append(self.unet.training), update(self, *a))[1],
    )
    train(tiny_config(tmp_path))
    assert modes == [False, False]
    assert trained == [True] * 12


def test_stock_previews_on_one_process_with_all_steps(tmp_path: Path) -> None:
    """Two processes draw the grid of one, in ddpm_num_inference_steps."""
    alone, shared = tiny_config(tmp_path / "a"), tiny_config(tmp_path / "b", train_batch_size=2)
    for config, processes in [(alone, 1), (shared, 2)]:
        options = {"max_train_steps": 1, "learning_rate": 1e-12, "eval_batch_size": 3}
        assert run_forked(config.replace(**options), processes=processes) == [0] * processes
    a, b = (
        np.asarray(Image.open(Path(config.output_dir) / "samples" / "step-0000001.png")).astype(
            int
        )
        for config in (alone, shared)
    )
    assert abs(a - b).max() <= 1


def test_stock_has_no_validation(a_run: Path) -> None:
    losses = [entry["validation_loss"] for entry in metrics(a_run) if "validation_loss" in entry]
    assert len(losses) == 2  # one an epoch of 8 steps, and one at the end
    assert all(0 < loss < 2 for loss in losses)


def test_validation_compares_between_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixed (t, noise): another seed of training gives the same loss for the same weights."""
    unet = a_trainer(tmp_path / "weights").unet
    monkeypatch.setattr("ddpm_pipeline.training.trainer.make_unet", lambda *_: copy.deepcopy(unet))
    losses = []
    for seed in (0, 1):
        config = tiny_config(
            tmp_path / str(seed), max_train_steps=1, seed=seed, learning_rate=1e-12
        )
        result = train(config, train_data=image_data(), validation_data=image_data(24))
        losses.append(result.validation_loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_stock_has_no_fid(a_run: Path, tmp_path: Path) -> None:
    """What a run leaves is measured as it is, in features of one's choice."""
    SmallFeatures(SmallFeaturesConfig(size=8, widths=(4, 4, 4), dim=5)).save_pretrained(tmp_path)
    config = EvaluateConfig(
        model=str(a_run),
        data=str(a_run.parent / "images.npy"),
        features=str(tmp_path),
        num_images=20,
        num_inference_steps=2,
        kid_subsets=2,
        bound_images=0,
    )
    report = evaluate(config)
    assert (report.num_images, report.num_reference) == (20, 40)
    assert 0 < report.frechet_distance < float("inf")


def test_stock_has_no_max_steps(tmp_path: Path) -> None:
    """Whichever of epochs and steps ends first; the learning rate ends there too."""
    for epochs, steps, expected in [(1, None, 10), (1, 3, 3), (1, 30, 10), (None, 30, 30)]:
        trainer = a_trainer(tmp_path, num_epochs=epochs, max_train_steps=steps)
        assert trainer.config.max_train_steps == expected
        assert trainer.learning_rate(expected) == 0 < trainer.learning_rate(expected - 1)
    result = train(tiny_config(tmp_path, max_train_steps=3))
    assert result.global_step == 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_stock_has_no_compile(tmp_path: Path) -> None:
    losses = []
    for name, compiled in [("a", False), ("b", True)]:
        config = tiny_config(tmp_path / name, max_train_steps=3, compile=compiled)
        # Compiled dropout draws other numbers.
        (tmp_path / name / "unet.json").write_text(json.dumps({**TINY_UNET, "dropout": 0.0}))
        losses.append(train(config).loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_stock_has_no_v_prediction(tmp_path: Path, prediction: str) -> None:
    train(tiny_config(tmp_path, max_train_steps=2, prediction_type=prediction))
    config = DDPMPipeline.from_pretrained(tmp_path / "run").scheduler.config
    assert config.prediction_type == prediction
    assert config.rescale_betas_zero_snr == (prediction != "epsilon")


class CountSynchronisations(TorchDispatchMode):
    """Operations that wait for the device and hand a value to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        name = func.overloadpacket.__name__
        self.count += name in {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero"}
        return func(*args, **(kwargs or {}))


def test_stock_synchronises_at_every_step(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path, gradient_accumulation_steps=2)
    source = batches(trainer)
    trainer.update(0, source)
    ready = [next(source) for _ in range(2)]
    with CountSynchronisations() as counter:
        trainer.update(1, iter(ready))
    assert counter.count == 0


def test_stock_logs_the_loss_of_one_micro_batch(tmp_path: Path) -> None:
    """The logged loss and gradients are those of the whole global batch, however it is cut."""
    options = {
        "max_train_steps": 3,
        "logging_steps": 3,
        "random_flip": False,
        "save_images_steps": 0,
        "checkpointing_steps": 0,
    }
    unet = {**TINY_UNET, "dropout": 0.0}
    cuts = {"whole": (8, 1, 1), "micro": (2, 4, 1), "processes": (4, 1, 2)}
    logged = {}
    for name, (size, accumulation, processes) in cuts.items():
        config = tiny_config(
            tmp_path / name,
            train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            **options,
        )
        (tmp_path / name / "unet.json").write_text(json.dumps(unet))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn", _noise_of_the_image)
            assert run_forked(config, processes=processes) == [0] * processes
        logged[name] = metrics(tmp_path / name / "run")[0]
    for name in ("micro", "processes"):
        for value in ("loss", "grad_norm"):
            assert logged[name][value] == pytest.approx(logged["whole"][value], rel=1e-4)


def _noise_of_the_image(shape: tuple[int, ...], **_: object) -> torch.Tensor:
    """The same noise for every image, so that how a batch is cut does not matter."""
    row = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    return row.expand(shape).clone()


def test_stock_forces_three_channels_and_decodes_again(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(blobs(12)):
        Image.fromarray(image).save(folder / f"{i}.png")
    config = tiny_config(tmp_path, max_train_steps=1).replace(train_data_dir=str(folder))
    train(config)
    unet = DDPMPipeline.from_pretrained(tmp_path / "run").unet
    assert unet.config.in_channels == 1
    read = Image.open

    def only_grids(source: object) -> Image.Image:
        assert isinstance(source, Path), "an image was decoded again"
        return read(source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", only_grids)
        train(config.replace(output_dir=str(tmp_path / "again")))
        with pytest.raises((AssertionError, ValueError), match=r"decoded again|can be read"):
            train(config.replace(output_dir=str(tmp_path / "b"), cache_dir=str(tmp_path / "b")))


def test_stock_ema_keeps_the_first_noise(tmp_path: Path) -> None:
    """What is left of the initial weights after 500 updates, and how much is averaged by then."""
    from ddpm_pipeline.training.averages import WeightAverages

    config = TrainingConfig()
    weight = torch.nn.Parameter(torch.ones(3))
    averages = WeightAverages(
        {"w": weight}, config.ema_decay, inv_gamma=config.ema_inv_gamma, power=config.ema_power
    )
    averages.update()
    with torch.no_grad():
        weight.zero_()
    for _ in range(500):
        averages.update()
    left = averages.state(0.999)["w"][0].item()
    assert 0 < left < 1e-20
    # Yet it averages: the last update counts for a few per cent only.
    with torch.no_grad():
        weight.fill_(1.0)
    averages.update()
    assert 0.001 < averages.state(0.999)["w"][0].item() < 0.06


def test_stock_parses_flags_that_it_never_reads() -> None:
    package = Path(ddpm_pipeline.__file__).parent
    read = set()
    for path in package.rglob("*.py"):
        if path != package / "training" / "config.py":
            tree = ast.parse(path.read_text())
            read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    fields = set(TrainingConfig.__dataclass_fields__)
    assert fields <= read


# Objectives and labels.


def test_labels_are_dropped_to_the_null_class_at_the_asked_rate(tmp_path: Path) -> None:
    trainer = a_trainer(
        tmp_path,
        class_conditional=True,
        embeddings=4,
        label_dropout=0.3,
        train_batch_size=40,
    )
    seen: list[torch.Tensor] = []
    trainer.forward = lambda x_t, _, labels, **__: seen.append(labels) or (x_t * 0,)
    source = batches(trainer, labels=[i % 3 for i in range(40)])
    for micro in range(50):
        trainer._micro_losses(0, micro, next(source), torch.zeros(40, dtype=torch.int64))
    labels = torch.cat(seen)
    dropped = (labels == 3).float().mean().item()
    assert dropped == pytest.approx(0.3, abs=0.04)
    assert labels.max() == 3  # three classes, and the null class


def test_stock_has_no_labels(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for i, image in enumerate(blobs(12)):
        (folder / "abc"[i % 3]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "abc"[i % 3] / f"{i}.png")
    config = tiny_config(
        tmp_path, class_conditional=True, embeddings=4, max_train_steps=2
    ).replace(train_data_dir=str(folder))
    train(config)
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "run")
    assert pipeline.unet.config.num_class_embeds == 4
    images = pipeline(
        2, num_inference_steps=2, class_labels=[0, 2], guidance_scale=2.0, output_type="np"
    ).images
    assert images.shape == (2, 8, 8, 1)
    with pytest.raises(ValueError, match="num_classes=5, but the labels have 3 classes"):
        train(config.replace(num_classes=5))
    Image.fromarray(blobs(1)[0]).save(folder / "stray.png")
    with pytest.raises(ValueError, match="labels missing for 1 of 13 images"):
        train(config)


def test_the_best_of_several_averages_is_saved(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        ema_decay=(0.0, 0.9999),
        ema_power=0.0,
        max_train_steps=6,
        learning_rate=1e-2,
        validation_size=8,
    )
    result = train(config)
    last = metrics(tmp_path / "run")[-1]
    # A decay of 0.9999 without warm-up is still at the first weights: the other must win.
    assert last["validation_loss_0.0"] < last["validation_loss_0.9999"]
    assert result.validation_loss == last["validation_loss"] == last["validation_loss_0.0"]
    saved = outcome(tmp_path / "run")
    name = "conv_in.weight"
    assert torch.equal(saved["model"][name], saved["tensors"][f"average-0.0/{name}"])
    assert torch.equal(saved["model"][name], saved["tensors"][f"model/{name}"])


def test_weight_decay_spares_norms_and_biases(tmp_path: Path) -> None:
    for both in (False, True):
        trainer = a_trainer(tmp_path, adam_weight_decay=0.1, decay_norms_and_biases=both)
        decays = {
            name: group["weight_decay"]
            for group in trainer.optimizer.param_groups
            for name, parameter in trainer.parameters.items()
            if any(parameter is p for p in group["params"])
        }
        assert decays["conv_in.weight"] == 0.1
        assert decays["conv_in.bias"] == decays["conv_norm_out.weight"] == (0.1 if both else 0.0)
        assert len(decays) == len(trainer.parameters)
        assert trainer.optimizer.defaults["fused"]


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path, max_grad_norm=0.01, use_ema=False)
    norms = []
    step = trainer.optimizer.step

    def noting(*args: object, **kwargs: object) -> object:
        grads = [p.grad.flatten() for p in trainer.parameters.values()]
        norms.append(torch.cat(grads).norm().item())
        return step(*args, **kwargs)

    trainer.optimizer.step = noting
    _, before = trainer.update(0, batches(trainer))
    assert before > 0.1
    assert norms == [pytest.approx(0.01, rel=1e-3)]


def test_recomputing_activations_changes_no_gradient(tmp_path: Path) -> None:
    plain = a_trainer(tmp_path)
    less_memory = a_trainer(tmp_path, gradient_checkpointing=True)
    assert less_memory.unet.is_gradient_checkpointing
    gradients = []

    def noting(trainer: Learner) -> None:
        gradients.append({name: p.grad.clone() for name, p in trainer.parameters.items()})

    for trainer in (plain, less_memory):
        trainer.unet.train()
        trainer.optimizer.step = partial(noting, trainer)
        trainer.update(0, batches(trainer))
    a, b = gradients
    assert all(gradient.count_nonzero() > 0 for gradient in a.values())
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_channels_last_is_a_matter_of_memory_order(tmp_path: Path) -> None:
    for name, last in [("a", False), ("b", True)]:
        config = tiny_config(tmp_path / name, max_train_steps=3, channels_last=last)
        # Dropout draws in memory order.
        (tmp_path / name / "unet.json").write_text(json.dumps({**TINY_UNET, "dropout": 0.0}))
        train(config)
    (a, *_), (b, *_) = (metrics(tmp_path / name / "run") for name in "ab")
    assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
    weights = DDPMPipeline.from_pretrained(tmp_path / "b" / "run").unet.conv_in.weight
    assert weights.is_contiguous()


# What goes wrong.


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, logging_steps=50, save_images_steps=0)
    update = Learner.update

    def poisoned(self: Learner, step: int, source: Iterator[Batch]) -> tuple:
        if step == 6:
            next(iter(self.parameters.values())).data.fill_(float("nan"))
        return update(self, step, source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "update", poisoned)
        with pytest.raises(
            FloatingPointError, match=r"nan .* at step 7: try a lower learning_rate"
        ):
            train(config)
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert saved.name == "step-0000004"
    assert train(config).finished  # from there, unpoisoned


def test_a_different_configuration_is_refused_with_the_differences(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    train(config)
    other = config.replace(learning_rate=1e-4, train_batch_size=2)
    with pytest.raises(
        ValueError, match=r"train_batch_size: 4 → 2, learning_rate: 0\.001 → 0\.0001\)"
    ):
        train(other)
    np.save(tmp_path / "images.npy", blobs(seed=1))
    with pytest.raises(ValueError, match="train_data: "):
        train(config)


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, max_train_steps=4)
    assert run_forked(config, processes=2) == [0, 0]
    with pytest.raises(ValueError, match="num_processes: 2 → 1"):
        train(config)


def test_more_steps_may_follow_where_the_learning_rate_allows(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, lr_scheduler="constant", save_images_steps=0)
    train(config.replace(max_train_steps=4))
    train(config.replace(max_train_steps=8, checkpointing_steps=2))
    whole = tiny_config(tmp_path / "b", lr_scheduler="constant", save_images_steps=0)
    train(whole.replace(max_train_steps=8))
    a, b = outcome(tmp_path / "run")["model"], outcome(tmp_path / "b" / "run")["model"]
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_finished_run_given_again_leaves_its_model_as_the_user_has_it(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    train(config)
    whole = outcome(tmp_path / "run")["model"]
    scheduler = tmp_path / "run" / "scheduler"
    plain = DDPMScheduler.from_pretrained(scheduler)
    errors = torch.full((len(plain),), 0.25, dtype=torch.float64)
    known = calibration_from_errors(plain.schedule, errors)
    plain.with_calibration(known).save_pretrained(scheduler)
    before = {p: p.read_bytes() for p in (tmp_path / "run").glob("*/*") if p.is_file()}
    assert train(config).finished
    assert {p: p.read_bytes() for p in before} == before
    assert DDPMScheduler.from_pretrained(scheduler).calibration is not None

    shutil.rmtree(tmp_path / "run" / "unet")
    assert train(config).finished
    after = outcome(tmp_path / "run")["model"]
    assert all(torch.equal(whole[name], after[name]) for name in whole)


def test_a_run_may_be_made_longer_until_its_cooldown_begins(tmp_path: Path) -> None:
    short = tiny_config(
        tmp_path, max_train_steps=10, checkpointing_steps=8, checkpoints_total_limit=None
    )
    train(short)
    with pytest.raises(
        ValueError, match=r"max_train_steps: 10 → 20; .* of its 10 .*, the last 20% of which cools"
    ):
        train(short.replace(max_train_steps=20))
    start = str(tmp_path / "run" / "checkpoints" / "step-0000008")
    longer = short.replace(max_train_steps=20, output_dir=str(tmp_path / "longer" / "run"))
    train(longer.replace(resume_from_checkpoint=start))
    whole = short.replace(max_train_steps=20, output_dir=str(tmp_path / "whole" / "run"))
    train(whole)
    a, b = (outcome(tmp_path / name / "run")["model"] for name in ("longer", "whole"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_another_run_is_not_overwritten_unless_told(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, max_train_steps=2, resume_from_checkpoint="none")
    train(config)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds another run .*overwrite_output_dir"):
        train(config)
    train(config.replace(overwrite_output_dir=True, seed=5))
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert TrainingConfig.from_json(tmp_path / "run" / "training_config.json").seed == 5


def test_a_run_resumes_from_a_named_checkpoint_into_another_folder(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, checkpoints_total_limit=None, validation_size=0.2)
    train(config)
    start = tmp_path / "run" / "checkpoints" / "step-0000004"
    train(
        config.replace(output_dir=str(tmp_path / "elsewhere"), resume_from_checkpoint=str(start))
    )
    a, b = outcome(tmp_path / "run"), outcome(tmp_path / "elsewhere")
    assert a["metrics"] == b["metrics"]
    assert all(torch.equal(a["tensors"][name], b["tensors"][name]) for name in a["tensors"])


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    from ddpm_pipeline.training.storage.folder import RunFolder

    config = tiny_config(tmp_path)
    folder = RunFolder(config.output_dir)
    folder.lock()
    with pytest.raises(FileExistsError, match="another process is training"):
        train(config)
    folder.unlock()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"train_batch_size": 41}, ValueError, "batch_size=41 .* larger than the data: 40"),
        ({"validation_size": 40.0}, ValueError, "leaves 0 for training"),
        ({"validation_size": 0.001}, ValueError, "0 for validation"),
        ({"mixed_precision": "fp16"}, ValueError, "'fp16' needs a GPU"),
        ({"resume_from_checkpoint": "nowhere"}, FileNotFoundError, "no folder 'nowhere'"),
        ({"resolution": 16}, ValueError, "sample_size=8, but training needs 16"),
        ({"train_data_dir": "nope"}, FileNotFoundError, "train_data_dir='nope' does not exist"),
        (
            {"validation_data_dir": "nope"},
            FileNotFoundError,
            "validation_data_dir='nope' does not",
        ),
        (
            {"validation_data_dir": "nope", "streaming": True, "max_train_steps": 1},
            FileNotFoundError,
            "validation_data_dir='nope' does not exist",
        ),
        ({"train_data_dir": None}, ValueError, "give train_data_dir or dataset_name"),
        ({"logger": "trackio"}, ImportError, "pip install trackio"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, options: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(tiny_config(tmp_path).replace(**options))
    assert not (tmp_path / "run" / "training_config.json").exists()


def test_a_resolution_that_costs_much_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dry_run(tiny_config(tmp_path).replace(resolution=33, model_config_name_or_path=None))
    assert "attends at 33 x 33 places" in caplog.text


def test_a_dry_run_refuses_a_batch_that_is_larger_than_the_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"batch_size=41 .* larger than the data: 40"):
        dry_run(tiny_config(tmp_path, train_batch_size=41))


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    numbers = dry_run(tiny_config(tmp_path, max_train_steps=None, num_epochs=3))
    unet = a_trainer(tmp_path).unet
    assert numbers.num_parameters == sum(p.numel() for p in unet.parameters())
    assert numbers.num_images == 40
    assert numbers.images_per_update == 4
    assert numbers.config.max_train_steps == 30
    assert numbers.memory["weights"] == 4 * numbers.num_parameters
    # The first convolution alone: 4 maps of 8 x 8 from 3 x 3 numbers, twice, forth and back.
    assert numbers.flops_per_image > 2 * 4 * 64 * 9 * 2
    assert "updates            30" in str(numbers)
    assert not (tmp_path / "run").exists()
