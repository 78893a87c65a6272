"""``TrainingConfig``: every option of training, in one frozen dataclass.

The names are those of diffusers' training example where it has the option. The text below a field
is its documentation and its ``ddpm train --help``. Values are checked when a config is made, so a
config that exists is one that can run; what depends on the data or the machine ("auto", epochs) is
settled by ``resolve``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from operator import index
from pathlib import Path, PurePath
from typing import Any, Literal, Self

from ddpm_pipeline.common import as_resolution, expand_home, write_json
from ddpm_pipeline.data import source_name
from ddpm_pipeline.diffusion import Loss, LossWeighting, TimestepSamplerName
from ddpm_pipeline.hub import parse_hub_checkpoint
from ddpm_pipeline.training.checks import check_options
from ddpm_pipeline.training.data_options import DataOptions
from ddpm_pipeline.training.few_images import FewImagesOptions
from ddpm_pipeline.training.given import in_place_of, without_leftovers
from ddpm_pipeline.training.network_options import NetworkOptions

__all__ = ["PRESETS", "TrainingConfig", "as_given"]


BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"]
LearningRateSchedule = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "constant_with_cooldown",
]
HubStrategy = Literal["end", "every_save", "checkpoint"]
Logger = Literal["none", "tensorboard", "wandb", "trackio"]
OptimizerName = Literal["auto", "muon", "adamw"]
Precision = Literal["auto", "no", "fp16", "bf16"]
Prediction = Literal["epsilon", "sample", "v_prediction"]
TrainedVariance = Literal["fixed_small", "fixed_large", "learned", "learned_range"]

_given: ContextVar[frozenset[str] | None] = ContextVar("_given", default=None)


@contextmanager
def as_given(names: Collection[str]) -> Iterator[None]:
    """Have configs that are made in the block know these options as given, and no others."""
    token = _given.set(frozenset(names))
    try:
        yield
    finally:
        _given.reset(token)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(FewImagesOptions, NetworkOptions, DataOptions):
    """All options of a training run.

    A config knows which of them were given, as ``given``: with a pretrained model the others are
    that model's, as far as they say what it is.

    Raises:
        ValueError: If a value is not allowed; the message names it and what is.
    """

    prediction_type: Prediction = "v_prediction"
    """What the network predicts."""
    ddpm_num_steps: int = 1000
    """T, the number of steps of the noise schedule."""
    ddpm_beta_schedule: BetaSchedule = "squaredcos_cap_v2"
    """The noise schedule."""
    ddpm_reference_side: float | None = None
    """Side that the noise schedule suits: 2 log(it / the images' side) is added to log SNR."""
    rescale_betas_zero_snr: bool | Literal["auto"] = "auto"
    """Leave nothing of the data in x_T; "auto" does unless the network predicts epsilon."""
    variance_type: TrainedVariance = "fixed_small"
    """Variance of the reverse process; the learned ones need loss vlb or hybrid."""
    loss: Loss = "simple"
    """The squared error, the variational bound, or both (hybrid, for a learned variance)."""
    vlb_weight: float = 1e-3
    """Weight of the bound in hybrid."""
    timestep_sampler: TimestepSamplerName = "low_discrepancy"
    """How the timestep of each example is drawn."""
    loss_weighting: LossWeighting = "uniform"
    """Weight of the squared error at each timestep."""
    snr_gamma: float = 5.0
    """Cap on the signal-to-noise ratio in min_snr."""
    p2_gamma: float = 1.0
    """Exponent of p2."""
    p2_k: float = 1.0
    """Offset of p2."""

    train_batch_size: int = 64
    """Images of one process in one forward pass."""
    gradient_accumulation_steps: int = 1
    """Forward passes per update."""
    num_epochs: int | None = None
    """Passes over the data; 100 unless this or max_train_steps is given. Of both, the first."""
    max_train_steps: int | None = None
    """Updates of the weights."""
    optimizer: OptimizerName = "auto"
    """Muon for hidden convolutions, AdamW for the rest; or AdamW. "auto" is muon with bf16."""
    muon_momentum: float = 0.95
    """Decay of the gradient's average in Muon."""
    learning_rate: float | None = None
    """Peak learning rate; 2e-3 with muon and 1e-3 with adamw by default."""
    lr_scheduler: LearningRateSchedule = "constant_with_cooldown"
    """Learning-rate schedule, counted in updates; cooldown is the last fifth of the run.

    A larger max_train_steps goes on from the checkpoint that is kept from before the cooldown."""
    lr_warmup_steps: int | None = None
    """Updates until the peak; unless given, 25 with muon, 100 with adamw, at most half the run."""
    adam_beta1: float = 0.9
    """Decay of the gradient's average in AdamW."""
    adam_beta2: float = 0.99
    """Decay of the squared gradient's average in AdamW."""
    adam_weight_decay: float = 0.0
    """Decoupled weight decay."""
    adam_epsilon: float = 1e-8
    """Added to the root of the squared gradient's average."""
    decay_norms_and_biases: bool = False
    """Apply weight decay to the vectors (norms and biases) too, not only to matrices."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them alone."""
    use_ema: bool = True
    """Average the weights; the averages are what is sampled, validated and saved."""
    ema_decay: tuple[float, ...] = (0.999,)
    """Limit of the decay; of several, the best by validation loss is saved, else the first."""
    ema_inv_gamma: float = 19.0
    """The decay of update i is 1 - (1 + i/inv_gamma)^-power, up to ema_decay."""
    ema_power: float = 1.0
    """See ema_inv_gamma."""
    post_hoc_steps: int = 0
    """Updates between snapshots of averages that `ddpm average` makes any other of; 0 for none."""
    post_hoc_sigma_rels: tuple[float, ...] = (0.05, 0.1)
    """Lengths of the averages in snapshots, as shares of the run so far."""

    mixed_precision: Precision = "auto"
    """Precision of the forward pass; "auto" is bf16 where the processor computes in it."""
    compile: bool | None = None
    """torch.compile the UNet; unless given, on CUDA. On CPUs it takes a minute, gains a tenth."""
    channels_last: bool | None = None
    """Keep the channels of a pixel together in memory; unless given, on CUDA with compile."""
    cuda_graph: bool = False
    """Launch forward and backward pass as one CUDA graph, for small networks on one GPU."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass, for less memory."""
    fsdp: bool = False
    """Shard weights, gradients, AdamW's state and averages over the processes, for less memory."""
    allow_tf32: bool = True
    """TensorFloat-32 on GPUs."""
    num_threads: int | None = None
    """Threads on CPUs; unless given all, or fewer where a trial before the run finds it faster."""
    deterministic: bool | None = None
    """Only algorithms that give the same bits again; unless given, on CUDA. On CPUs all do."""

    output_dir: str = "ddpm-model"
    """Folder of the model, its samples, metrics and checkpoints."""
    overwrite_output_dir: bool = False
    """Start afresh in a folder that holds another run, deleting that run's files."""
    seed: int = 0
    """All randomness follows from this number, the step and the process."""
    logger: Logger = "none"
    """Where metrics go beside metrics.jsonl."""
    logging_dir: str = "logs"
    """Folder in output_dir for the logger's files."""
    logging_steps: int = 50
    """Updates between log entries."""
    validation_steps: int | None = None
    """Updates between validations; one per epoch unless given."""
    validate_bound_steps: int = 0
    """Updates between measurements of bits/dim on the held-out images; 0 for none."""
    validate_bound_images: int = 256
    """How many of the held-out images bits/dim is measured on."""
    eval_batch_size: int = 16
    """Images in a sample grid."""
    ddpm_num_inference_steps: int | None = None
    """Reverse steps of a sample grid; 25 unless given, or all if there are fewer."""
    preview_scheduler: Literal["ddim", "ddpm", "multistep"] = "ddim"
    """How a sample grid is drawn: the scheduler's solver."""
    preview_guidance_scale: float = 1.0
    """Weight of guidance in a sample grid: by the null class, or the model below; 1 is none."""
    preview_guidance_model: str | None = None
    """A saved model that guides the sample grids: a folder, or a model of the Hub."""
    preview_guidance_interval: tuple[int, int] | None = None
    """The lowest and the highest timestep that is guided in a sample grid; all unless given."""
    save_images_epochs: int | None = None
    """Epochs between sample grids; 10 unless given. One is drawn at the end in any case."""
    save_images_steps: int | None = None
    """Updates between sample grids, in place of save_images_epochs."""
    save_model_epochs: int | None = None
    """Epochs between savings of the model; 10 unless given. It is saved at the end in any case."""
    save_model_steps: int | None = None
    """Updates between savings of the model, in place of save_model_epochs."""
    checkpointing_steps: int = 500
    """Updates between checkpoints, from which a run resumes; 0 for none."""
    checkpoints_total_limit: int | None = 2
    """How many checkpoints to keep; None keeps all."""
    resume_from_checkpoint: str = "latest"
    """"latest" resumes by itself; a checkpoint's folder; "none"; "hub", or "hub:USER/NAME@TAG"."""

    push_to_hub: bool = False
    """Push the model to the Hub, beside training, which goes on whatever happens to the push."""
    hub_model_id: str | None = None
    """The repository, as USER/NAME; it is made if it is missing."""
    hub_strategy: HubStrategy = "end"
    """Push at the end only, at every saving of the model, or at every checkpoint, with it."""
    hub_private: bool = False
    """Make the repository a private one, if it has to be made."""
    hub_license: str | None = None
    """What the Hub calls the licence of the model, such as apache-2.0."""
    hub_timeout: float = 600.0
    """Seconds to wait at the end until the last push is done."""

    def __new__(cls, **options: Any) -> Self:  # noqa: ANN401
        """Note which options are given; ``__init__`` has their values.

        All of them at once are a copy, as of ``dataclasses.replace``, in which those count that
        are not the defaults.
        """
        config, names, fields = super().__new__(cls), _given.get(), dataclasses.fields(cls)
        if names is None and len(options) == len(fields):
            names = frozenset(f.name for f in fields if options[f.name] != f.default)
        object.__setattr__(config, "_given", frozenset(options) if names is None else names)
        return config

    def __post_init__(self) -> None:
        expand_home(self, *_PATHS, *SOURCES)
        object.__setattr__(self, "resolution", as_resolution(self.resolution))
        check_options(self)

    @property
    def given(self) -> frozenset[str]:
        """The names of the options that were passed, here or to ``replace``."""
        return self._given

    def replace(self, **changes: Any) -> TrainingConfig:  # noqa: ANN401
        """Change some options, and check all of them again.

        An option takes the place of the one that it excludes, as save_images_steps of
        save_images_epochs.
        """
        with as_given(self.given | changes.keys()):
            return dataclasses.replace(self, **in_place_of(changes))

    def to_dict(self) -> dict[str, Any]:
        """Give the options as JSON values, with local paths reduced to their last names."""
        values = dataclasses.asdict(self)
        for name in _PATHS:
            values[name] = PurePath(values[name] or "").name or values[name]
        if parse_hub_checkpoint(self.resume_from_checkpoint, self.hub_model_id) is not None:
            values["resume_from_checkpoint"] = self.resume_from_checkpoint
        for name in SOURCES:
            values[name] = values[name] and source_name(values[name])
        return json.loads(json.dumps(values, default=index))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingConfig:
        """Make a config of what ``to_dict`` gave, with paths as they were reduced.

        Raises:
            ValueError: If a key is unknown or a value is not allowed.
        """
        known = {item.name: item for item in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - known.keys()):
            raise ValueError(f"unknown training options {unknown}")
        lists = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
        values = without_leftovers({**values, **lists})
        with as_given([name for name, value in values.items() if value != known[name].default]):
            return cls(**values)

    def save_json(self, path: str | Path, *, derived: Collection[str] = ()) -> None:
        """Write the options to a file, with the names of those that nobody gave."""
        write_json(Path(path), self.to_dict() | ({"derived": list(derived)} if derived else {}))

    @classmethod
    def from_json(cls, path: str | Path, *, derived: bool = True) -> TrainingConfig:
        """Read a file that ``save_json`` wrote, with or without the options that nobody gave.

        Raises:
            ValueError: If it is another kind of file, or a value is not allowed.
        """
        try:
            values = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{str(path)!r} is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise ValueError(f"{str(path)!r} must hold an object of training options")
        unknown = values.pop("derived", [])
        return cls.from_dict({k: v for k, v in values.items() if derived or k not in unknown})


_PATHS = ("cache_dir", "output_dir", "logging_dir", "resume_from_checkpoint")

SOURCES = (
    "train_data_dir",
    "dataset_name",
    "validation_data_dir",
    "condition_on",
    "model_config_name_or_path",
    "pretrained_model_name_or_path",
    "validate_fid_features",
    "preview_guidance_model",
)
"""Options that say where something is read from: paths, or names of the Hub."""


with as_given(()):  # nobody gave what a preset says
    PRESETS: dict[str, TrainingConfig] = {
        "default": TrainingConfig(),
        "ddpm": TrainingConfig(
            model_size="ddpm",
            dropout=0.1,
            random_flip=True,
            prediction_type="epsilon",
            ddpm_beta_schedule="linear",
            rescale_betas_zero_snr=False,
            timestep_sampler="uniform",
            train_batch_size=128,
            num_epochs=None,
            max_train_steps=800_000,
            optimizer="adamw",
            learning_rate=2e-4,
            lr_scheduler="constant_with_warmup",
            lr_warmup_steps=5000,
            adam_beta2=0.999,
            ema_decay=(0.9999,),
            ema_power=0.0,
            mixed_precision="no",
            ddpm_num_inference_steps=1000,
            preview_scheduler="ddpm",
            save_images_steps=10_000,
            checkpointing_steps=5000,
        ),
    }
    """Starting points: our measured defaults, and the recipe of Ho et al. 2020 for CIFAR-10."""
