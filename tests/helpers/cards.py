"""What cards hold: their results, their code, their command; and folders to make them of."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.processes import exit_codes, fork
from huggingface_hub import EvalResult, ModelCard

from ddpm_pipeline import DDPMPipeline, DDPMScheduler

if TYPE_CHECKING:
    from diffusers import UNet2DModel


REPO = "alice/digits"


def saved(unet: UNet2DModel, scheduler: DDPMScheduler, folder: Path) -> Path:
    """Save a pipeline and give its folder back."""
    DDPMPipeline(unet, scheduler).save_pretrained(folder)
    return folder


def results_on(text: str) -> list[EvalResult]:
    """Read the results in a card's metadata."""
    return ModelCard(text).data.eval_results


def snippets(text: str, repo: Path) -> list[str]:
    """Read the Python code on a card, for the model in a folder."""
    found = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(found) == 2
    return [code.replace(json.dumps(REPO), json.dumps(str(repo))) for code in found]


def command_on(text: str) -> list[str]:
    """Read the options of the training command on a card."""
    words = re.search(r"^(`{3,})bash\nddpm train (.*?)^\1$", text, re.DOTALL | re.MULTILINE)[2]
    return shlex.split(words.replace("\\\n", ""))


def retrain(folder: Path) -> None:
    """Put other weights into a run's folder."""
    unet = DDPMPipeline.from_pretrained(folder).unet
    next(iter(unet.parameters())).data.add_(1)
    unet.save_pretrained(folder / "unet")


def run_code(code: str, folder: Path, *, stock_only: bool = False) -> None:
    """Run code in a new process, in a folder."""

    def run() -> None:
        os.chdir(folder)
        if stock_only:
            for name in list(sys.modules):
                if name.split(".")[0] == "ddpm_pipeline":
                    sys.modules[name] = None
        exec(code, {"__name__": "__main__"})

    assert exit_codes([fork(run)]) == [0]
