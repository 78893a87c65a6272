"""Statistics by which sets of images are compared: moments of all features, and some features.

    extractor = load_features("features/")
    real      = reference_statistics(data, extractor)          kept on disk for the next time
    generated = sample_statistics(sampler, extractor, 10_000)

    frechet_distance(generated.moments, real.moments)
    kid(generated.features, real.features)

Images pass through one batch at a time, on all processes of `accelerate launch` together, and what
remains has a size that does not depend on their number.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_pipeline.common import (
    load_tensors,
    moved,
    on_main,
    printable,
    process_state,
    stream_generator,
    write_aside,
)
from ddpm_pipeline.data import ImageData, default_cache_dir
from ddpm_pipeline.evaluation.features import FeatureExtractor
from ddpm_pipeline.evaluation.metrics import Moments
from ddpm_pipeline.pipelines import ImageSampler

__all__ = ["ImageStatistics", "feature_statistics", "reference_statistics", "sample_statistics"]

logger = logging.getLogger(__name__)

# Images that pass through an extractor at once, on a CPU and on a GPU.
_BATCH_SIZE, _BATCH_SIZE_ON_GPUS = 64, 512
_VERSION = 1


@dataclass(frozen=True, eq=False)
class ImageStatistics:
    """Statistics of a set of images in the features of one extractor.

    Arguments:
        moments: Of the features of all images.
        features: Of some of the images (n, D), float32, on the CPU.
        seconds: Time that it took to get the images, summed over the processes.
    """

    moments: Moments
    features: Tensor
    seconds: float = 0.0


def feature_statistics(
    images: Callable[[range], Tensor],
    count: int,
    extractor: FeatureExtractor,
    *,
    kept: Tensor,
    batch_size: int | None = None,
    description: str = "Features",
    progress: bool = True,
) -> ImageStatistics:
    """Pass images 0 … count - 1 through an extractor, each process its share of the batches.

    Arguments:
        images: Gives the images of consecutive numbers, uint8 (B, C, H, W).
        count: How many there are.
        extractor: Maps images to features.
        kept: Numbers of the images whose features are kept, int64, ascending.
        batch_size: How many images are asked for at a time; what the extractor's device is best
            at unless given.
        description: What the progress bar says.
        progress: Whether to show it, on the main process.
    Returns:
        The statistics of all images, the same on every process.
    Raises:
        ValueError: If features are not finite.
    """
    state = process_state()
    if batch_size is None:
        on_cpu = torch.device(extractor.device).type == "cpu"
        batch_size = _BATCH_SIZE if on_cpu else _BATCH_SIZE_ON_GPUS
    starts = range(0, count, batch_size)[state.process_index :: state.num_processes]
    moments, features, numbers, seconds = None, [], [], 0.0
    bar = tqdm(starts, description, disable=not (progress and state.is_main_process))
    for start in bar:
        batch = range(start, min(start + batch_size, count))
        before = time.perf_counter()
        pixels = images(batch)
        seconds += time.perf_counter() - before
        values = extractor(pixels)
        moments = moments or Moments(values.shape[1], _float64_device(values))
        moments.update(values)
        first, last = torch.searchsorted(kept, torch.tensor([batch.start, batch.stop])).tolist()
        numbers.append(kept[first:last])
        features.append(values[moved(kept[first:last] - start, values.device)])
    if moments is None:
        return _merge(gather_object([]))
    own = (moments.cpu(), torch.cat(numbers), torch.cat(features).cpu(), seconds)
    return _merge(gather_object([own]))


def _float64_device(values: Tensor) -> torch.device:
    """Give the device of features, or the CPU where that has no float64."""
    return torch.device("cpu") if values.device.type == "mps" else values.device


def _merge(parts: list[tuple[Moments, Tensor, Tensor, float]]) -> ImageStatistics:
    """Join the processes' shares, features in the order of the images' numbers."""
    moments = Moments(parts[0][0].dim)
    for part in parts:
        moments.merge(part[0])
    if not moments.total.isfinite().all():
        raise ValueError("features must be finite, but some are not")
    order = torch.cat([numbers for _, numbers, _, _ in parts]).argsort()
    features = torch.cat([features for _, _, features, _ in parts])[order]
    return ImageStatistics(moments, features, sum(seconds for *_, seconds in parts))


def sample_statistics(
    sampler: ImageSampler,
    extractor: FeatureExtractor,
    num_images: int,
    *,
    num_kept: int = 10_000,
    progress: bool = True,
) -> ImageStatistics:
    """Draw images 0 … num_images - 1 of a sampler, and keep their statistics alone.

    Arguments:
        sampler: Draws image i.
        extractor: Maps images to features.
        num_images: How many images are drawn.
        num_kept: Features of the first so many are kept.
        progress: Whether to show a progress bar.
    """
    sampler = sampler.sized(num_images)

    def draw(numbers: range) -> Tensor:
        return torch.from_numpy(sampler(numbers)).permute(0, 3, 1, 2)

    return feature_statistics(
        draw,
        num_images,
        extractor,
        kept=torch.arange(min(num_images, num_kept)),
        batch_size=sampler.options.batch_size,
        description="Drawing images",
        progress=progress,
    )


def reference_statistics(
    data: ImageData,
    extractor: FeatureExtractor,
    *,
    num_kept: int = 10_000,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> ImageStatistics:
    """Give the statistics of a data set, computed once for its content and the extractor's.

    Arguments:
        data: The images.
        extractor: Maps images to features.
        num_kept: Features of so many images, drawn at random, are kept.
        cache_dir: Where statistics are stored; beside the decoded images unless given.
        progress: Whether to show a progress bar.
    """
    # Beside the bytes, as what is shown of deeper values follows from their centre and unit too.
    scale = "" if data.scale is None else f" {json.dumps(data.scale.to_dict(), sort_keys=True)}"
    key = f"{_VERSION} {data.fingerprint} {extractor.fingerprint} {num_kept}{scale}"
    folder = Path(cache_dir) if cache_dir else default_cache_dir() / "statistics"
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    found = on_main(lambda: _load(path), process_state())
    if found is not None:
        return found
    generator = stream_generator("reference_features", 0)
    kept = torch.randperm(len(data), generator=generator)[:num_kept].sort().values
    statistics = feature_statistics(
        data.pictures,
        len(data),
        extractor,
        kept=kept,
        description="Reference images",
        progress=progress,
    )
    on_main(lambda: _store(statistics, path), process_state())
    return statistics


def _store(statistics: ImageStatistics, path: Path) -> None:
    """Write statistics to a file."""
    moments = statistics.moments
    tensors = {
        "count": torch.tensor(moments.count),
        "total": moments.total,
        "outer": moments.outer,
        "features": statistics.features,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path) as file:
        file.write(save(tensors))


def _load(path: Path) -> ImageStatistics | None:
    """Read statistics from a file; None if there is none, or with a warning if it is damaged."""
    if not path.exists():
        return None
    try:
        tensors = load_tensors(path)
    except SafetensorError:
        name = printable(str(path))
        logger.warning("%s is damaged; the statistics are computed again", name)
        return None
    moments = Moments(len(tensors["total"]))
    moments.count = int(tensors["count"])
    moments.total, moments.outer = tensors["total"], tensors["outer"]
    return ImageStatistics(moments, tensors["features"])
