"""The tab "Draw": what images depend on, and the images on their way out of the noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from ddpm_pipeline.app.drawing import Wish, draw
from ddpm_pipeline.app.fields import AskedFields, Results, whole_number
from ddpm_pipeline.app.models import Models
from ddpm_pipeline.schedulers import SOLVERS

if TYPE_CHECKING:
    from ddpm_pipeline.app.config import AppConfig

__all__ = ["lay_out_drawing"]

_AS_SAVED = "as saved"


def lay_out_drawing(model: gr.Dropdown, models: Models, config: AppConfig) -> AskedFields:
    """Show the tab, and give its fields."""
    with gr.Row():
        with gr.Column(scale=1):
            seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            fields = AskedFields.lay_out(config, "Images")
            solvers = [_AS_SAVED, *SOLVERS]
            solver = gr.Dropdown(solvers, value=_AS_SAVED, label="Solver")
            buttons = Results.buttons("Draw", "draw")
        with gr.Column(scale=2):
            results = Results.lay_out(buttons, "Images", "draw")

    def shown(name: str, solver: str, seed: float | None, *asked: Any) -> Iterator[tuple]:  # noqa: ANN401
        wish = Wish(
            solver="" if solver == _AS_SAVED else solver,
            seed=whole_number("seed", seed),
            **fields.asked(name, *asked),
        )
        for view in draw(models, wish, **config.limits):
            yield view.picture, view.said

    results.come_from(shown, [model, solver, seed, *fields.inputs])
    return fields
