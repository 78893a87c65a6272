"""How a model is used: the part of its card that readers copy from.

usage_text(facts)       code for this package, code for stock diffusers, and what differs
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ddpm_pipeline.cards.conditions import picture_lines, stock_lines
from ddpm_pipeline.cards.markdown import code, fenced

if TYPE_CHECKING:
    from ddpm_pipeline.cards.text import CardFacts

__all__ = ["usage_text"]

_SHOWN_STEPS = (50, 40, 25, 20, 10)
_DDPM_SCHEDULER = "DDPMScheduler"


def usage_text(facts: CardFacts) -> str:
    """Write how the model is used, with this package and without it."""
    count = 4 if facts.num_classes is None else min(facts.num_classes, 4)
    T = facts.num_train_timesteps
    steps = next((K for K in _SHOWN_STEPS if T % K == 0), T)
    parts = [
        "With `ddpm_pipeline`:",
        fenced(_own_snippet(facts, count, steps), "python"),
        "With stock diffusers, without `ddpm_pipeline`:",
        fenced(_stock_snippet(facts, count, steps), "python"),
        *_differences(facts),
    ]
    return "\n\n".join(parts)


def _own_snippet(facts: CardFacts, count: int, steps: int) -> str:
    arguments = f"batch_size={count}, num_inference_steps={steps}"
    if facts.num_classes is not None:
        arguments += f", class_labels={list(range(count))}"
    arguments += "" if facts.told is None else f", {facts.told.argument}"
    if facts.scheduler.get("_class_name") == _DDPM_SCHEDULER:
        arguments += ", eta=0.0"
    imports, picture = picture_lines(facts.told)
    return "\n".join(
        [
            *imports,
            "from ddpm_pipeline import DDPMPipeline",
            "",
            f"pipe = DDPMPipeline.from_pretrained({json.dumps(facts.repo_id)})",
            *picture,
            f"images = pipe({arguments}).images",
            'images[0].save("sample.png")',
        ]
    )


def _stock_snippet(facts: CardFacts, count: int, steps: int) -> str:
    load = f"pipe = DiffusionPipeline.from_pretrained({json.dumps(facts.repo_id)})"
    height, width = facts.image_size
    shape = (count, facts.channels, height, width)
    if facts.told is None and facts.num_classes is None:
        lines = [
            "from diffusers import DiffusionPipeline",
            "",
            load,
            f"images = pipe(batch_size={count}, num_inference_steps={steps}).images",
            'images[0].save("sample.png")',
        ]
        return "\n".join(lines)
    loop = [
        f"class_labels = torch.tensor({list(range(count))})",
        f"x_t = torch.randn{shape}",
        f"pipe.scheduler.set_timesteps({steps})",
        "with torch.no_grad():",
        "    for t in pipe.scheduler.timesteps:",
        "        output = pipe.unet(x_t, t, class_labels).sample",
        "        x_t = pipe.scheduler.step(output, t, x_t).prev_sample",
    ]
    if facts.told is not None:
        variance = facts.scheduler.get("variance_type")
        loop = stock_lines(
            facts.told,
            shape,
            steps,
            has_classes=facts.num_classes is not None,
            learns_variance=variance in {"learned", "learned_range"},
        )
    return "\n".join(
        [
            *(["import math", ""] if facts.told is not None and facts.told.ranges else []),
            "import torch",
            "from diffusers import DiffusionPipeline",
            "",
            load,
            *loop,
            "images = pipe.numpy_to_pil((x_t / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())",
            'images[0].save("sample.png")',
        ]
    )


def _differences(facts: CardFacts) -> list[str]:
    """Say what stock diffusers does otherwise with this model."""
    notes = []
    if facts.scheduler.get("_class_name") == _DDPM_SCHEDULER:
        notes.append(
            "The first takes steps of DDIM (`eta=0.0`; without it, of DDPM), stock takes steps of "
            "DDPM, which need a larger `num_inference_steps` for the same quality."
        )
    if facts.told is not None:
        notes.append("Stock's pipeline passes no condition; hence the loop.")
    elif facts.num_classes is not None:
        notes.append(
            "Stock's pipeline passes no class labels, so that calling it fails; hence the loop."
        )
    notes += [
        f"The model's {code(name)} is {code(option['value'])}, which stock diffusers does not "
        f"know: it samples with {code(option['stock'])} in its place."
        for name, option in facts.own_options.items()
    ]
    return [" ".join(notes)] if notes else []
