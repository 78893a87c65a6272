"""``ddpm average``: a model of any average length, of a run that kept snapshots of two.

ddpm average runs/photos --sigma_rel 0.15 --output_dir model
ddpm average runs/photos --find --data photos/ --split test --output_dir model
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from ddpm_pipeline.cli.arguments import naming_options, parse
from ddpm_pipeline.cli.inputs import ask_hub, not_here, require_features, require_split
from ddpm_pipeline.cli.printing import say
from ddpm_pipeline.common import check_at_least, check_new_folder, expand_home
from ddpm_pipeline.training import check_has_snapshots, gamma_of

if TYPE_CHECKING:
    from ddpm_pipeline.likelihood import BoundConfig

__all__ = ["AverageArguments", "run"]

_IMAGES = 1000  # to measure with


@dataclass(frozen=True, kw_only=True)
class AverageArguments:
    """Make a model of any average of a run's weights; `--run` may be left out before its name.

    The run has to have kept snapshots, by `ddpm train --post_hoc_steps N`; it may be unfinished.
    """

    run: str
    """The output_dir of a training run."""
    output_dir: str
    """A new or empty folder for the model."""
    sigma_rel: float | None = None
    """Length of the average as a share of the run, 0.2887 at most; shorter is closer to the last
    weights."""
    step: int | None = None
    """The update at which the average is taken; that of the last snapshot unless given."""
    find: bool = False
    """Try several lengths on held-out images, and take the best."""
    sigma_rels: tuple[float, ...] = (0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25)
    """The lengths to try."""
    data: str | None = None
    """Held-out images that find measures on: anything that `open_images` takes."""
    split: str | None = None
    """Which part of the data; "train" unless given, if there is one. Where training held images
    out by validation_size, "training" and "validation" are the parts it made."""
    features: str | None = None
    """Find the least Fréchet distance in these features, as for `ddpm evaluate`; bits/dim unless
    given."""
    num_images: int | None = None
    """Images to draw, or to measure bits/dim on; 1,000 unless given, and of fewer held-out images
    bits/dim of all."""
    num_inference_steps: int | None = None
    """Steps of the images that are drawn; as `ddpm evaluate` takes them unless given."""
    seed: int = 0
    """All lengths are measured with the same noise, which follows from this number."""

    def __post_init__(self) -> None:
        expand_home(self, "run", "output_dir", "data", "features")
        check_at_least(self, step=1, num_images=1, num_inference_steps=1, seed=0)
        if self.find == (self.sigma_rel is not None):
            raise ValueError(
                "give either sigma_rel or find=True, got " + ("both", "none")[not self.find]
            )
        if self.find and self.data is None:
            raise ValueError("find=True needs data, the images to measure on")
        if not self.find and self.data is not None:
            raise ValueError(
                "data is for find=True, which measures several lengths; got sigma_rel"
            )
        if not self.sigma_rels:
            raise ValueError("sigma_rels must hold at least one length, got none")
        for length in self.sigma_rels if self.sigma_rel is None else (self.sigma_rel,):
            gamma_of(length)


class _Tried(NamedTuple):
    """A length and what was measured with it."""

    sigma_rel: float
    value: float
    standard_error: float | None


def run(argv: Sequence[str]) -> None:
    """Average as the arguments say; print what was tried and where the model is."""
    with naming_options(AverageArguments):
        arguments = parse(AverageArguments, argv, prog="ddpm average", positional=("run",))
        _check_places(arguments)
        tried = sorted(_try_all(arguments)) if arguments.find else []
        best = min(tried, key=lambda found: found.value).sigma_rel if tried else None

        from ddpm_pipeline.training import save_average

        more = {"measured": _measure_of(arguments), "tried": [found._asdict() for found in tried]}
        model = save_average(
            arguments.run,
            arguments.output_dir,
            arguments.sigma_rel or best,
            arguments.step,
            more=more if tried else None,
        )
        say(
            *([_table(arguments, tried, best)] if tried else []),
            f"{arguments.output_dir}: {model}",
        )


def _check_places(arguments: AverageArguments) -> None:
    """Refuse a run without snapshots, images that are nowhere and an output that is not empty."""
    if not Path(arguments.run).is_dir():
        raise FileNotFoundError(f"run: there is no folder {arguments.run!r}")
    check_has_snapshots(arguments.run)
    check_new_folder("output_dir", arguments.output_dir)
    if arguments.data is not None:
        on_hub = not_here(data=arguments.data)
        require_split(arguments.data, arguments.split)
        require_features(arguments.features)
        ask_hub(on_hub)


def _try_all(arguments: AverageArguments) -> Iterator[_Tried]:
    """Measure the model of every length."""
    from ddpm_pipeline.training import save_average

    measure = _bits_per_dim if arguments.features is None else _distance
    for sigma_rel in arguments.sigma_rels:
        with TemporaryDirectory() as folder:
            save_average(arguments.run, folder, sigma_rel, arguments.step)
            if arguments.num_images is None:
                arguments = replace(arguments, num_images=_num_images(arguments, folder))
            yield _Tried(sigma_rel, *measure(arguments, folder))


def _num_images(arguments: AverageArguments, model: str) -> int:
    """Give the images to measure with, where that was left open."""
    if arguments.features is not None:
        return _IMAGES
    from ddpm_pipeline.data import open_measured
    from ddpm_pipeline.pipelines import DDPMPipeline

    unet = DDPMPipeline.from_pretrained(model).unet
    return min(_IMAGES, len(open_measured(_bound_config(arguments, model), unet)))


def _bound_config(arguments: AverageArguments, model: str) -> BoundConfig:
    from ddpm_pipeline.likelihood import BoundConfig

    return BoundConfig(
        model=model,
        data=arguments.data,
        split=arguments.split,
        num_images=arguments.num_images,
        seed=arguments.seed,
    )


def _bits_per_dim(arguments: AverageArguments, model: str) -> tuple[float, float]:
    """Measure the bound, and its standard error over images."""
    from ddpm_pipeline.likelihood import bound_of_saved_model

    report = bound_of_saved_model(_bound_config(arguments, model))
    return float(report.bits_per_dim), float(report.standard_error)


def _distance(arguments: AverageArguments, model: str) -> tuple[float, None]:
    """Measure the Fréchet distance, which has no error of its own."""
    from ddpm_pipeline.evaluation import EvaluateConfig, evaluate

    report = evaluate(
        EvaluateConfig(
            model=model,
            data=arguments.data,
            split=arguments.split,
            features=arguments.features,
            num_images=arguments.num_images,
            num_inference_steps=arguments.num_inference_steps,
            seed=arguments.seed,
            num_nearest=0,
            bound_images=0,
        )
    )
    return report.frechet_distance, None


def _measure_of(arguments: AverageArguments) -> str:
    return "bits/dim" if arguments.features is None else "Fréchet distance"


def _table(arguments: AverageArguments, tried: Sequence[_Tried], best: float) -> str:
    """Lay out what was tried."""
    lines = [f"sigma_rel  {_measure_of(arguments)}"]
    for length, value, error in tried:
        spread = "" if error is None else f" ± {error:.4f}"
        lines.append(f"{length:<9g}  {value:.4f}{spread}{'  best' if length == best else ''}")
    return "\n".join(lines)
