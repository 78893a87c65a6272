"""The tab "Edit": a picture, a hole painted on it, and what the model makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from ddpm_pipeline.app.drawing import enlarged
from ddpm_pipeline.app.editing import KINDS, TASKS, EditWish, edit, hole_of, seen_by
from ddpm_pipeline.app.fields import (
    AskedFields,
    Results,
    in_words_once,
    picture_field,
    whole_number,
)
from ddpm_pipeline.app.models import Models

if TYPE_CHECKING:
    from ddpm_pipeline.app.config import AppConfig

__all__ = ["lay_out_editing"]


def lay_out_editing(model: gr.Dropdown, models: Models, config: AppConfig) -> AskedFields:
    """Show the tab, and give its fields."""
    with gr.Row():
        with gr.Column():
            given, editor = _lay_out_given()
        with gr.Column():
            of_task = _lay_out_task()
            seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            fields = AskedFields.lay_out(config, "Results")
            buttons = Results.buttons("Change it", "change")
        with gr.Column():
            results = Results.lay_out(buttons, "Results", "change")

    def see(name: str, picture: Image.Image | None) -> dict[str, Any] | None:
        if picture is None:
            return None
        seen = enlarged(seen_by(models.open(name), picture))
        return {"background": seen, "layers": [], "composite": seen}

    def changed(name: str, *values: Any) -> Iterator[tuple]:  # noqa: ANN401
        of_picture, asked = values[: -len(fields.inputs)], values[-len(fields.inputs) :]
        wish = EditWish(**_of_picture(*of_picture), **fields.asked(name, *asked))
        for view in edit(models, wish, **config.limits):
            yield view.picture, view.said

    for event in (given.change, model.change):
        event(in_words_once(see), [model, given], editor)
    inputs = [model, given, editor, *of_task, seed, *fields.inputs]
    results.come_from(changed, inputs)
    return fields


def _lay_out_given() -> tuple[gr.Image, gr.ImageEditor]:
    """Show where a picture is put, and where its hole is painted."""
    given = picture_field("Picture", elem_id="given")
    editor = gr.ImageEditor(
        label="Paint the hole",
        type="pil",
        sources=[],
        brush=gr.Brush(default_size=40, colors=["#ff4500"], color_mode="fixed"),
        buttons=[],
        layers=False,
        transforms=(),
        elem_id="editor",
    )
    return given, editor


def _lay_out_task() -> list[Any]:
    """Show the task, and what only some have a use for."""
    task = gr.Radio(list(TASKS), value=TASKS[0], label="Task", elem_id="task")
    strength = gr.Slider(0, 1, value=0.5, label="Strength", visible=False)
    with gr.Group(visible=False) as of_restoring:
        kind = gr.Dropdown(list(KINDS), value=KINDS[0], label="What was done to it")
        amount = gr.Number(2, label="Pixels: the blur's deviation, or the factor")
        noise = gr.Slider(0, 0.5, value=0.05, step=0.01, label="Noise on it")
        is_whole = gr.Checkbox(True, label="The picture is whole: do that to it first")

    def uses(task: str) -> tuple[Any, Any]:
        return gr.Slider(visible=task == "vary"), gr.Group(visible=task == "restore")

    task.change(uses, task, [strength, of_restoring], queue=False, show_progress="hidden")
    return [task, strength, kind, amount, noise, is_whole]


def _of_picture(
    picture: Image.Image | None,
    painted: dict[str, Any] | None,
    task: str,
    strength: float,
    kind: str,
    amount: float | None,
    noise: float,
    is_whole: bool,
    seed: float | None,
) -> dict[str, Any]:
    """Give what a wish of the tab has beside what all have."""
    return {
        "picture": picture,
        "hole": None if painted is None else hole_of(painted["layers"]),
        "task": task,
        "strength": float(strength),
        "operator": kind if kind == "missing" or amount is None else f"{kind}:{amount:g}",
        "noise_std": float(noise),
        "is_whole": is_whole,
        "seed": whole_number("seed", seed),
    }
