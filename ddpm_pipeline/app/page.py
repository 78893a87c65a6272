"""The page itself: what can be chosen, and what is shown.

    page = make_page(AppConfig(models=("model",)))
    page.launch()

The network works for one person at a time; others wait in a queue, and are told their place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr
import pandas as pd

from ddpm_pipeline.app.draw_tab import lay_out_drawing
from ddpm_pipeline.app.edit_tab import lay_out_editing
from ddpm_pipeline.app.fields import in_words_once, offer_told
from ddpm_pipeline.app.figures import card_of, losses_of, pictures_of
from ddpm_pipeline.app.models import Models
from ddpm_pipeline.app.walk_tab import lay_out_walking
from ddpm_pipeline.app.walking import LEAST_OF_A_WAY

if TYPE_CHECKING:
    from ddpm_pipeline.app.config import AppConfig

__all__ = ["make_page"]

_SECONDS = 5  # between two looks at a run that trains
_KEPT = 600  # seconds that pictures stay on disk


def make_page(config: AppConfig) -> gr.Blocks:
    """Lay out the page; no model is opened before somebody looks at it.

    Arguments:
        config: The models and the limits.
    """
    models = Models(config.models)
    with gr.Blocks(
        title="ddpm_pipeline", analytics_enabled=False, delete_cache=(_KEPT, _KEPT)
    ) as page:
        model = gr.Dropdown(list(models.names), value=models.names[0], label="Model")
        with gr.Tab("Draw"):
            drawn = lay_out_drawing(model, models, config)
        with gr.Tab("Edit"):
            edited = lay_out_editing(model, models, config)
        fields = [drawn, edited]
        if config.most_images >= LEAST_OF_A_WAY:
            with gr.Tab("Walk"):
                fields.append(lay_out_walking(model, models, config))
        offer_told(page, model, models, fields)
        with gr.Tab("Numbers"):
            _lay_out_numbers(page, model)
        with gr.Tab("Training"):
            _lay_out_training(page, model)
    return page.queue(max_size=config.most_waiting, default_concurrency_limit=1, api_open=False)


def _lay_out_numbers(page: gr.Blocks, model: gr.Dropdown) -> None:
    """The model's card, and the plots beside it."""
    gallery = gr.Gallery(label="Samples and plots", columns=3, interactive=False)
    card = gr.Markdown()

    def known(name: str) -> tuple[list[Any], str]:
        return pictures_of(name), card_of(name)

    for event in (page.load, model.change):
        event(in_words_once(known), model, [gallery, card])


def _lay_out_training(page: gr.Blocks, model: gr.Dropdown) -> None:
    """The curves of a run, which are looked at again while it trains."""
    curves = gr.LinePlot(x="update", y="value", color="curve", label="Training", elem_id="curves")
    newest = gr.Image(label="Newest samples", interactive=False, buttons=[], elem_id="newest")

    def course(name: str) -> tuple[pd.DataFrame, Any]:
        rows = [(*point, curve) for curve, points in losses_of(name).items() for point in points]
        frame = pd.DataFrame(rows, columns=["update", "value", "curve"])
        return frame, next(iter(pictures_of(name)), None)

    for event in (page.load, model.change, gr.Timer(_SECONDS).tick):
        event(in_words_once(course), model, [curves, newest], show_progress="hidden")
