"""The tab "Walk": from one image to another, side by side or as an animation."""

from __future__ import annotations

from collections.abc import Iterator
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from ddpm_pipeline.app.fields import AskedFields, Results, picture_field, whole_number
from ddpm_pipeline.app.models import Models
from ddpm_pipeline.app.walking import LEAST_OF_A_WAY, WalkWish, walk, write_animation

if TYPE_CHECKING:
    from ddpm_pipeline.app.config import AppConfig

__all__ = ["lay_out_walking"]

_ENDS = ("first", "last")
_SEEDS, _PICTURES = "two seeds", "two pictures"
_SIDE_BY_SIDE, _ANIMATION = "side by side", "animation"


def lay_out_walking(model: gr.Dropdown, models: Models, config: AppConfig) -> AskedFields:
    """Show the tab, and give its fields."""
    with gr.Row():
        with gr.Column(scale=1):
            of_ends = _lay_out_ends()
            fields = AskedFields.lay_out(
                config, "Images on the way", usual=8, least=LEAST_OF_A_WAY
            )
            shapes = [_SIDE_BY_SIDE, _ANIMATION]
            shape = gr.Radio(shapes, value=shapes[0], label="Shown", elem_id="shape")
            buttons = Results.buttons("Walk", "walk")
        with gr.Column(scale=2):
            results = Results.lay_out(buttons, "The way", "walk")

    def shown(name: str, shape: str, *values: Any) -> Iterator[tuple]:  # noqa: ANN401
        of_ends, asked = values[: -len(fields.inputs)], values[-len(fields.inputs) :]
        wish = WalkWish(**_of_ends(*of_ends), **fields.asked(name, *asked))
        for view in walk(models, wish, **config.limits):
            if view.is_last and shape == _ANIMATION:
                with NamedTemporaryFile(suffix=".png") as file:  # which Gradio copies
                    write_animation(file, view.frames)
                    yield file.name, view.said
            else:
                yield view.picture, view.said

    results.come_from(shown, [model, shape, *of_ends, *fields.inputs])
    return fields


def _lay_out_ends() -> list[Any]:
    """Show what the ends of the way are given by."""
    between = gr.Radio([_SEEDS, _PICTURES], value=_SEEDS, label="Between", elem_id="ends")
    with gr.Row() as of_seeds:
        seeds = [
            gr.Number(i, label=f"Seed of the {end}", precision=0, minimum=0)
            for i, end in enumerate(_ENDS)
        ]
    with gr.Row(visible=False) as of_pictures:
        pictures = [picture_field(f"The {end}", elem_id=f"{end}-end") for end in _ENDS]

    def uses(between: str) -> tuple[Any, Any]:
        return gr.Row(visible=between == _SEEDS), gr.Row(visible=between == _PICTURES)

    between.change(uses, between, [of_seeds, of_pictures], queue=False, show_progress="hidden")
    return [between, *seeds, *pictures]


def _of_ends(
    between: str,
    first_seed: float | None,
    last_seed: float | None,
    first: Image.Image | None,
    last: Image.Image | None,
) -> dict[str, Any]:
    """Give what a wish of the tab has beside what all have."""
    return {
        "seed": whole_number("seed of the first", first_seed),
        "last_seed": whole_number("seed of the last", last_seed),
        "pictures": None if between == _SEEDS else (first, last),
    }
