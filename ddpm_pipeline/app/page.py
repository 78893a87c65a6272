"""The page itself: what can be chosen, and what is shown.

    page = make_page(AppConfig(models=("model",)))
    page.launch()

The network works for one person at a time; others wait in a queue, and are told their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any

import gradio as gr
import pandas as pd

from ddpm_pipeline.app.drawing import Wish, draw
from ddpm_pipeline.app.editing import TASKS, EditWish, edit, hole_of
from ddpm_pipeline.app.figures import card_of, losses_of, pictures_of
from ddpm_pipeline.app.models import Models
from ddpm_pipeline.schedulers import SOLVERS

if TYPE_CHECKING:
    from ddpm_pipeline.app.config import AppConfig

__all__ = ["make_page"]

_AS_SAVED = "as saved"
_SECONDS = 5  # between two looks at a run that trains
_FAULTS = (ValueError, TypeError, OSError, RuntimeError, ImportError)
_MOST_GUIDANCE = 10
_KEPT = 600  # seconds that pictures stay on disk
_CANVAS = 448  # pixels of a picture that is painted on


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
            _lay_out_drawing(page, model, models, config)
        with gr.Tab("Edit"):
            _lay_out_editing(page, model, models, config)
        with gr.Tab("Numbers"):
            _lay_out_numbers(page, model)
        with gr.Tab("Training"):
            _lay_out_training(page, model)
    return page.queue(max_size=config.most_waiting, default_concurrency_limit=1, api_open=False)


def _lay_out_drawing(
    page: gr.Blocks, model: gr.Dropdown, models: Models, config: AppConfig
) -> None:
    """What images depend on, and the images."""
    with gr.Row():
        with gr.Column(scale=1):
            few = min(4, config.most_images)
            count = gr.Slider(1, config.most_images, value=few, step=1, label="Images")
            seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            most = config.most_steps
            steps = gr.Slider(0, most, value=0, step=1, label="Steps (0: as saved)")
            solvers = [_AS_SAVED, *SOLVERS]
            solver = gr.Dropdown(solvers, value=_AS_SAVED, label="Solver")
            kind = gr.Dropdown([], label="Class", visible=False)
            guidance = gr.Slider(0, _MOST_GUIDANCE, value=1, label="Guidance", visible=False)
            with gr.Row():
                go = gr.Button("Draw", variant="primary", elem_id="draw")
                stop = gr.Button("Stop", variant="stop", elem_id="stop")
        with gr.Column(scale=2):
            picture = gr.Image(
                label="Images",
                format="png",
                type="pil",
                interactive=False,
                buttons=["download", "fullscreen"],
                elem_id="picture",
            )
            said = gr.Textbox(label="Progress", interactive=False, elem_id="said")

    def shown(*values: Any) -> Iterator[tuple]:  # noqa: ANN401
        wish = _wish(*values)
        limits = {"most_images": config.most_images, "most_steps": config.most_steps}
        for view in draw(models, wish, **limits):
            yield view.picture, view.said

    inputs = [model, solver, count, seed, steps, kind, guidance]
    drawing = go.click(_in_words(shown), inputs, [picture, said], concurrency_id="network")
    stop.click(None, cancels=[drawing])
    _offer_classes(page, model, models, kind, guidance)


def _offer_classes(
    page: gr.Blocks, model: gr.Dropdown, models: Models, kind: gr.Dropdown, guidance: gr.Slider
) -> None:
    """Show the classes of the model that is chosen, if it has some."""

    def choices(name: str) -> tuple[gr.Dropdown, gr.Slider]:
        classes = models.open(name).classes
        first = None if classes is None else classes[0]
        kinds = [] if classes is None else [(str(label), label) for label in classes]
        visible = classes is not None
        return (
            gr.Dropdown(kinds, value=first, visible=visible),
            gr.Slider(value=1, visible=visible),
        )

    for event in (page.load, model.change):
        event(_in_words_once(choices), model, [kind, guidance], concurrency_id="network")


def _lay_out_editing(
    page: gr.Blocks, model: gr.Dropdown, models: Models, config: AppConfig
) -> None:
    """A picture to paint a hole on, and what becomes of it."""
    with gr.Row():
        with gr.Column():
            editor = gr.ImageEditor(
                label="Picture, and the hole painted on it",
                type="pil",
                sources=["upload", "clipboard"],
                brush=gr.Brush(default_size=40, colors=["#ff4500"], color_mode="fixed"),
                buttons=[],
                layers=False,
                transforms=(),
                canvas_size=(_CANVAS, _CANVAS),
                fixed_canvas=True,
                elem_id="editor",
            )
            task = gr.Radio(list(TASKS), value=TASKS[0], label="Task", elem_id="task")
            strength = gr.Slider(0, 1, value=0.5, label="Strength of varying")
            count = gr.Slider(
                1, config.most_images, value=min(4, config.most_images), step=1, label="Results"
            )
            seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            steps = gr.Slider(0, config.most_steps, value=0, step=1, label="Steps (0: as saved)")
            kind = gr.Dropdown([], label="Class of the result", visible=False)
            guidance = gr.Slider(0, _MOST_GUIDANCE, value=1, label="Guidance", visible=False)
            with gr.Row():
                go = gr.Button("Change it", variant="primary", elem_id="change")
                stop = gr.Button("Stop", variant="stop", elem_id="change-stop")
        with gr.Column():
            picture = gr.Image(
                label="Results",
                format="png",
                interactive=False,
                buttons=["download", "fullscreen"],
                elem_id="changed",
            )
            said = gr.Textbox(label="Progress", interactive=False, elem_id="change-said")

    def changed(*values: Any) -> Iterator[tuple]:  # noqa: ANN401
        wish = _edit_wish(*values)
        limits = {"most_images": config.most_images, "most_steps": config.most_steps}
        for view in edit(models, wish, **limits):
            yield view.picture, view.said

    inputs = [model, task, editor, strength, count, seed, steps, kind, guidance]
    changing = go.click(_in_words(changed), inputs, [picture, said], concurrency_id="network")
    stop.click(None, cancels=[changing])
    _offer_classes(page, model, models, kind, guidance)


def _edit_wish(
    model: str,
    task: str,
    painted: dict[str, Any] | None,
    strength: float,
    *asked: Any,  # noqa: ANN401
) -> EditWish:
    """Make a wish of what the tab's fields hold."""
    below = None if painted is None else painted["background"]
    return EditWish(
        task=task,
        picture=None if below is None else below.convert("RGB"),
        hole=None if below is None else hole_of(painted["layers"], below.size),
        strength=float(strength),
        **_asked(model, *asked),
    )


def _wish(model: str, solver: str, *asked: Any) -> Wish:  # noqa: ANN401
    """Make a wish of what the tab's fields hold."""
    return Wish(solver="" if solver == _AS_SAVED else solver, **_asked(model, *asked))


def _asked(
    model: str,
    count: float,
    seed: float | None,
    steps: float,
    kind: str | int | None,
    guidance: float,
) -> dict[str, Any]:
    """Give what all wishes have, of what fields hold."""
    if seed is None:
        raise ValueError("seed must be a whole number of at least 0, got nothing")
    return {
        "model": model,
        "num_images": int(count),
        "seed": int(seed),
        "num_steps": int(steps),
        "class_label": kind,
        "guidance_scale": float(guidance),
    }


def _lay_out_numbers(page: gr.Blocks, model: gr.Dropdown) -> None:
    """The model's card, and the plots beside it."""
    gallery = gr.Gallery(label="Samples and plots", columns=3, interactive=False)
    card = gr.Markdown()

    def known(name: str) -> tuple[list[Any], str]:
        return pictures_of(name), card_of(name)

    for event in (page.load, model.change):
        event(_in_words_once(known), model, [gallery, card])


def _lay_out_training(page: gr.Blocks, model: gr.Dropdown) -> None:
    """The curves of a run, which are looked at again while it trains."""
    curves = gr.LinePlot(x="update", y="value", color="curve", label="Training", elem_id="curves")
    newest = gr.Image(label="Newest samples", interactive=False, buttons=[], elem_id="newest")

    def course(name: str) -> tuple[pd.DataFrame, Any]:
        rows = [(*point, curve) for curve, points in losses_of(name).items() for point in points]
        frame = pd.DataFrame(rows, columns=["update", "value", "curve"])
        return frame, next(iter(pictures_of(name)), None)

    for event in (page.load, model.change, gr.Timer(_SECONDS).tick):
        event(_in_words_once(course), model, [curves, newest], show_progress="hidden")


def _in_words(work: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Have mistakes in an iterator's work shown on the page as sentences."""

    @wraps(work)
    def told(*values: Any) -> Iterator[Any]:  # noqa: ANN401
        try:
            yield from work(*values)
        except _FAULTS as error:
            raise gr.Error(str(error), print_exception=False) from error

    return told


def _in_words_once(work: Callable[..., Any]) -> Callable[..., Any]:
    """Have mistakes in a function's work shown on the page as sentences."""

    @wraps(work)
    def told(*values: Any) -> Any:  # noqa: ANN401
        try:
            return work(*values)
        except _FAULTS as error:
            raise gr.Error(str(error), print_exception=False) from error

    return told
