"""The options of the page: which models, where it listens, and how much one person may ask for.

AppConfig(models=("model",), port=7860)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ddpm_pipeline.common import at_home, check_at_least

__all__ = ["AppConfig"]

_HIGHEST_PORT = 65_535


@dataclass(frozen=True, kw_only=True)
class AppConfig:
    """Show models on a page in the browser; folders of runs that train show how far they are."""

    models: tuple[str, ...] = ()
    """Folders of models or of training runs, or models of the Hub, to choose from."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in, and there is no password."""
    port: int = 7860
    """Port to listen on."""
    most_images: int = 16
    """Images that can be asked for at once."""
    most_steps: int = 1000
    """Steps that can be asked for."""
    most_waiting: int = 16
    """Requests that may wait; further ones are refused."""
    open_browser: bool = False
    """Open the page in this machine's browser."""

    def __post_init__(self) -> None:
        if isinstance(self.models, str):
            object.__setattr__(self, "models", (self.models,))  # the class is frozen
        models = tuple(str(Path(at_home("models", model))) for model in self.models)
        object.__setattr__(self, "models", models)
        if not models:
            raise ValueError("models must name at least one model to show, got none")
        if repeated := sorted({model for model in models if models.count(model) > 1}):
            raise ValueError(f"models must differ, got {repeated[0]!r} more than once")
        check_at_least(self, port=1, most_images=1, most_steps=1, most_waiting=1)
        if self.port > _HIGHEST_PORT:
            raise ValueError(f"port must be at most {_HIGHEST_PORT}, got {self.port}")

    @property
    def limits(self) -> dict[str, int]:
        """Give the most that one person may ask for, as the page's work takes it."""
        return {"most_images": self.most_images, "most_steps": self.most_steps}
