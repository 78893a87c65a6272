"""What the tabs of the page have in common: the fields of all wishes, results, and mistakes.

fields = AskedFields.lay_out(config, "Images")
fields.asked(model_name, *values)           what ``Asked`` takes, of what the fields hold
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import gradio as gr

from ddpm_pipeline.app.conditions import numbers_of, usual_numbers
from ddpm_pipeline.app.models import Models, OpenModel

if TYPE_CHECKING:
    from PIL import Image

    from ddpm_pipeline.app.config import AppConfig
    from ddpm_pipeline.networks import Conditioning

__all__ = [
    "AskedFields",
    "Results",
    "in_words",
    "in_words_once",
    "offer_told",
    "picture_field",
    "whole_number",
]

_FAULTS = (ValueError, TypeError, OSError, RuntimeError, ImportError)
_MOST_GUIDANCE = 10
_HEIGHT = 200  # pixels of a picture that is given
NETWORK = "network"  # whose work is done for one person at a time


def picture_field(label: str, **options: Any) -> gr.Image:  # noqa: ANN401
    """Show where a picture is put, which comes as it is: what cannot be kept is refused later."""
    as_it_is = {"type": "pil", "image_mode": None, "sources": ["upload", "clipboard"]}
    return gr.Image(label=label, height=_HEIGHT, **as_it_is, **options)


@dataclass(frozen=True, eq=False)
class AskedFields:
    """The fields of every wish.

    Arguments:
        count, steps, kind, guidance: As in ``Asked``.
        numbers, picture: What a model with conditions is told.
    """

    count: gr.Slider | gr.Number
    steps: gr.Slider
    kind: gr.Dropdown
    guidance: gr.Slider
    numbers: gr.Textbox
    picture: gr.Image

    @classmethod
    def lay_out(
        cls, config: AppConfig, counted: str, usual: int = 4, least: int = 1
    ) -> AskedFields:
        """Show them.

        Arguments:
            config: The limits.
            counted: What there can be several of.
            usual: How many, to begin with.
            least: As few as this; no more than the limit.
        """
        return cls(
            count=_count_field(counted, usual, least, config.most_images),
            steps=gr.Slider(0, config.most_steps, value=0, step=1, label="Steps (0: as saved)"),
            kind=gr.Dropdown([], label="Class", visible=False),
            guidance=gr.Slider(0, _MOST_GUIDANCE, value=1, label="Guidance", visible=False),
            numbers=gr.Textbox(label="Numbers", visible=False, elem_classes="numbers"),
            picture=picture_field("Condition", visible=False, elem_classes="condition"),
        )

    @property
    def inputs(self) -> list[Any]:
        """List them as ``asked`` takes their values."""
        return [
            self.count,
            self.steps,
            self.kind,
            self.guidance,
            self.numbers,
            self.picture,
        ]

    @staticmethod
    def asked(
        model: str,
        count: float,
        steps: float,
        kind: str | int | None,
        guidance: float,
        numbers: str | None,
        picture: Image.Image | None,
    ) -> dict[str, Any]:
        """Give what all wishes have but the seed, of what the fields hold."""
        return {
            "model": model,
            "num_images": int(count),
            "num_steps": int(steps),
            "class_label": kind,
            "guidance_scale": float(guidance),
            "condition_numbers": numbers_of(numbers),
            "condition_picture": picture,
        }


def _count_field(counted: str, usual: int, least: int, most: int) -> gr.Slider | gr.Number:
    if least == most:  # which Gradio's sliders do not allow
        return gr.Number(most, label=counted, precision=0, interactive=False)
    return gr.Slider(least, most, value=min(usual, most), step=1, label=counted)


def whole_number(name: str, value: float | None) -> int:
    """Give the number of a field.

    Raises:
        ValueError: If nothing stands there.
    """
    if value is None:
        raise ValueError(f"{name} must be a whole number of at least 0, got nothing")
    return int(value)


def offer_told(
    page: gr.Blocks, model: gr.Dropdown, models: Models, fields: Sequence[AskedFields]
) -> None:
    """Show what the model that is chosen can be told: a class, numbers, a picture."""

    def choices(name: str) -> list[Any]:
        model = models.open(name)
        return [*_classes_offered(model), *_conditions_offered(model.told)] * len(fields)

    shown = [
        part
        for field in fields
        for part in (field.kind, field.guidance, field.numbers, field.picture)
    ]
    for event in (page.load, model.change):
        event(in_words_once(choices), model, shown, concurrency_id=NETWORK)


def _classes_offered(model: OpenModel) -> tuple[gr.Dropdown, gr.Slider]:
    classes = model.classes
    first = None if classes is None else classes[0]
    kinds = [] if classes is None else [(str(label), label) for label in classes]
    is_guided = classes is not None or (model.told is not None and model.told.trains_null)
    return (
        gr.Dropdown(kinds, value=first, visible=classes is not None),
        gr.Slider(value=1, visible=is_guided),
    )


def _conditions_offered(told: Conditioning | None) -> tuple[gr.Textbox, gr.Image]:
    has_numbers = told is not None and bool(told.columns)
    ranges = str(replace(told, channels=0)) if has_numbers else ""
    return (
        gr.Textbox(
            usual_numbers(told) if has_numbers else "",
            label=f"Numbers: {ranges}",
            visible=has_numbers,
        ),
        gr.Image(value=None, visible=told is not None and told.channels > 0),
    )


@dataclass(frozen=True, eq=False)
class Results:
    """Where pictures and words about them are shown, and the buttons that begin and end it.

    Arguments:
        go, stop: The buttons.
        picture, said: What is to be seen.
    """

    go: gr.Button
    stop: gr.Button
    picture: gr.Image
    said: gr.Textbox

    @staticmethod
    def buttons(go: str, name: str) -> tuple[gr.Button, gr.Button]:
        """Show a button that begins the work, and one that ends it."""
        with gr.Row():
            return (
                gr.Button(go, variant="primary", min_width=80, elem_id=name),
                gr.Button("Stop", variant="stop", min_width=80, elem_id=f"{name}-stop"),
            )

    @classmethod
    def lay_out(cls, buttons: tuple[gr.Button, gr.Button], label: str, name: str) -> Results:
        """Show an empty picture, with room for words."""
        picture = gr.Image(
            label=label,
            show_label=False,
            format="png",
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id=f"{name}-picture",
        )
        said = gr.Textbox(label="Progress", interactive=False, elem_id=f"{name}-said")
        return cls(*buttons, picture, said)

    def come_from(self, work: Callable[..., Iterator[Any]], inputs: list[Any]) -> None:
        """Have them come of an iterator over what is to be seen.

        Arguments:
            work: Called with what the inputs hold, yields pictures or files, and words; None for
                the picture of before.
            inputs: Fields.
        """

        @in_words
        def views(*values: Any) -> Iterator[tuple]:  # noqa: ANN401
            for picture, said in work(*values):
                yield gr.skip() if picture is None else picture, said

        shown = [self.picture, self.said]
        working = self.go.click(views, inputs, shown, concurrency_id=NETWORK)
        self.stop.click(None, cancels=[working])


def in_words(work: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Have mistakes in an iterator's work shown on the page as sentences."""

    @wraps(work)
    def told(*values: Any) -> Iterator[Any]:  # noqa: ANN401
        try:
            yield from work(*values)
        except _FAULTS as error:
            raise gr.Error(str(error), print_exception=False) from error

    return told


def in_words_once(work: Callable[..., Any]) -> Callable[..., Any]:
    """Have mistakes in a function's work shown on the page as sentences."""

    @wraps(work)
    def told(*values: Any) -> Any:  # noqa: ANN401
        try:
            return work(*values)
        except _FAULTS as error:
            raise gr.Error(str(error), print_exception=False) from error

    return told
