"""The model card: what a model is, how to use it, and its numbers with how they were obtained."""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.cards.card import card_picture, renew_card

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "card": "card_picture renew_card",
    },
)
