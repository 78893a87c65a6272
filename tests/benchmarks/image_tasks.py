"""What tasks on given images come to: posteriors of Gaussian images, and images that come back.

    python tests/benchmarks/image_tasks.py posterior
    python tests/benchmarks/image_tasks.py inversion --model MODEL --data fashion-mnist

The first needs no model: the denoiser and the posterior are exact, so that all of an error is the
method's, but for that of 20,000 draws, which exact draws have too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from results import record

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.data import open_images
from ddpm_pipeline.pipelines import PosteriorMethod
from ddpm_pipeline.pipelines.tasks.operators import blur

SHAPE, DRAWS, STD = (1, 3, 3), 20_000, 0.02
METHODS = {
    "mmps": (PosteriorMethod("mmps"), 10),
    "dps, step size 1": (PosteriorMethod("dps"), 50),
    "dps, step size 0.1": (PosteriorMethod("dps", step_size=0.1), 50),
    "dps, step size 0.03": (PosteriorMethod("dps", step_size=0.03), 50),
    "repaint, 1 pass": (PosteriorMethod("repaint", resamples=1), 50),
    "repaint, 10 passes": (PosteriorMethod("repaint"), 50),
}


def errors(draws: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor) -> list[float]:
    """Error of the mean in standard deviations, and relative errors of std and covariance."""
    x = draws.flatten(1).double()
    std = covariance.diagonal().sqrt()
    found = torch.cov(x.T)
    return [
        ((x.mean(0) - mean) / std).square().mean().sqrt().item(),
        (found.diagonal().sqrt() / std - 1).square().mean().sqrt().item(),
        ((found - covariance).norm() / covariance.norm()).item(),
    ]


def posterior() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from helpers.gaussian_images import GaussianImages
    from helpers.oracles import linear_betas

    data = GaussianImages.smooth(SHAPE)
    unet = data.denoiser(linear_betas())
    pipe = DDPMPipeline(unet, DDPMScheduler(clip_sample=False))
    pipe.set_progress_bar_config(disable=True)
    x = data.sample(1, seed=5)
    hole = torch.zeros(1, 1, *SHAPE[1:])
    hole[..., 1:, 1:] = 1
    is_hole = hole.flatten() > 0
    known = torch.eye(9, dtype=torch.float64)[~is_hole]
    A = blur(1.0, SHAPE[1:])(torch.eye(9).reshape(9, *SHAPE)).reshape(9, 9).T.double()
    noise = torch.randn(9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = A @ (x.flatten() + 1) / 2 + STD * noise
    m, S = data.posterior(known, known @ x.flatten(), 0.0)
    of_hole = m[is_hole], S[is_hole][:, is_hole]
    of_blur = data.posterior(A, 2 * y - A @ torch.ones(9, dtype=torch.float64), 2 * STD)
    rows = [["exact draws", "-", "-", *exact(*of_hole), *exact(*of_blur)]]
    for name, (method, K) in METHODS.items():
        how = {
            "batch_size": DRAWS,
            "max_batch_size": DRAWS,
            "generator": torch.Generator().manual_seed(0),
            "num_inference_steps": K,
            "output_type": "pt",
            "method": method,
        }
        unet.calls = 0
        filled = pipe.inpaint((x.float() + 1) / 2, hole, **how).images.flatten(1)[:, is_hole]
        row, calls, restored = errors(2 * filled - 1, *of_hole), unet.calls, ["-"] * 3
        if method.name != "repaint":
            images = pipe.restore(y.float().reshape(1, *SHAPE), "blur:1", STD, **how).images
            restored = errors(2 * images - 1, *of_blur)
        rows.append([name, K, calls, *row, *restored])
        print(rows[-1], flush=True)
    record(
        "posterior",
        title="Posteriors of Gaussian images",
        command="python tests/benchmarks/image_tasks.py posterior",
        text="3 × 3 Gaussian images, an exact denoiser, T = 1000, linear schedule: 20,000 draws "
        "of 4 pixels in a hole by `inpaint`, and of the image behind a blur of 1 pixel with noise "
        f"of {STD} by `restore`, against the posterior in closed form. The mean's error is in "
        "standard deviations of a pixel, those of the standard deviation and the covariance are "
        "relative; all are root mean squares. mmps is exact at every number of steps: its "
        "errors are those of 20,000 draws.",
        columns=[
            "method", "steps", "calls", "hole: mean", "std", "covariance", "blur: mean", "std",
            "covariance",
        ],
        rows=rows,
        notes=["Calls of the network; those of mmps have their vector-Jacobian products too."],
    )  # fmt: skip


def exact(mean: torch.Tensor, covariance: torch.Tensor) -> list[float]:
    torch.manual_seed(0)
    normal = torch.distributions.MultivariateNormal(
        mean, covariance + 1e-12 * torch.eye(len(mean))
    )
    return errors(normal.sample((DRAWS,)), mean, covariance)


def inversion(model: str, data: str, split: str) -> None:
    pipe = DDPMPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    calls = []
    pipe.unet.eval().register_forward_hook(lambda *_: calls.append(1))
    size, channels = pipe.unet.config.sample_size, pipe.unet.config.in_channels
    images = open_images(data, split=split, resolution=size, channels=channels)
    images = images.batch(torch.arange(4)).images / 255
    rows = []
    for K in (10, 25, 100):
        for most in (1, 3):
            how = {"num_inference_steps": K}
            calls.clear()
            noise = pipe.invert(images, calls_per_step=most, **how)
            counted = len(calls)
            back = pipe.revert(noise, output_type="pt", **how).images
            squared = (back - images).square().flatten(1).mean(1)
            psnr = -10 * squared.log10()
            rows.append(
                [K, most, counted, psnr.mean().item(), psnr.min().item(), noise.std().item()]
            )
            print(rows[-1], flush=True)
    record(
        "inversion",
        title="Images that come back from their noise",
        command="python tests/benchmarks/image_tasks.py inversion --model MODEL "
        "--data fashion-mnist",
        text="`invert`, then `revert` with the same K steps, on 4 test images of Fashion-MNIST: "
        "the peak signal-to-noise ratio of what comes back, by the calls of the network that the "
        "inverse of a step may take. 1 is the usual inversion of DDIM. The model is the default "
        "one at 28 × 28 after 1,341 updates.",
        columns=["K", "calls_per_step", "calls", "PSNR, dB", "its least", "std of the noise"],
        rows=rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["posterior", "inversion"])
    parser.add_argument("--model")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "posterior":
        posterior()
    else:
        inversion(arguments.model, arguments.data, arguments.split)


if __name__ == "__main__":
    main()
