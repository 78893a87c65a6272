"""The page on an address of this machine, from which no request leaves it.

    end = serve(AppConfig(models=("model",)))
    end()

Gradio's page asks other machines for fonts and scripts that it does without; the browser is told
not to (Content-Security-Policy), and Gradio's server not to fetch an address that a visitor names.
What is shown lies in Gradio's own folder for ten minutes; no other file can be asked for.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from ddpm_pipeline.app.config import AppConfig

__all__ = ["run_as_space", "serve"]

_POLICY = (
    "default-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "form-action 'self'; base-uri 'self'; frame-ancestors "
)
_THE_HUB = "https://huggingface.co https://*.hf.space"  # which show a Space inside of their page
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}


class _AskNoOthers:
    """Middleware that tells browsers to ask nobody else."""

    def __init__(self, app: Callable[..., Any], shown_by: str) -> None:
        self._app = app
        self._policy = f"{_POLICY}{shown_by}".encode()

    async def __call__(self, scope: dict[str, Any], receive: object, send: Any) -> None:  # noqa: ANN401
        async def send_with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", self._policy)
                message["headers"] = [*message["headers"], policy]
            await send(message)

        await self._app(scope, receive, send_with_policy)


async def _fetch_nothing(url: str, *_: object, **__: object) -> str:
    """Stand in for what fetches a picture that a visitor names by its address."""
    raise ValueError(f"pictures are uploaded, not fetched: {url[:100]!r}")


def _check_port(host: str, port: int) -> None:
    """Refuse an address that is in use, or that this machine has not.

    Raises:
        ValueError: If nothing can listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            pass
    except OSError as error:
        reason = (
            "is in use"
            if error.errno == errno.EADDRINUSE
            else f"cannot be used: {error.strerror or error}"
        )
        raise ValueError(f"port {port} of host {host!r} {reason}; choose another") from error


def run_as_space(repo_id: str) -> None:
    """Show a model of the Hub in a Space there, until the process is ended.

    Arguments:
        repo_id: OWNER/NAME. A private one needs a token, the Space's secret HF_TOKEN.
    Raises:
        ValueError, ImportError: As ``serve``.
    """
    port = int(os.environ.get("GRADIO_SERVER_PORT", AppConfig.port))
    serve(AppConfig(models=(repo_id,), host="0.0.0.0", port=port), shown_by=_THE_HUB)  # noqa: S104
    threading.Event().wait()


def serve(config: AppConfig, shown_by: str = "'none'") -> Callable[[], None]:
    """Show the page, by threads of this process.

    Arguments:
        config: The options.
        shown_by: Whose pages may show this one inside of theirs, as of Content-Security-Policy.
    Returns:
        What ends it.
    Raises:
        ValueError: If the port is in use.
        ImportError: If Gradio is missing; says what to install.
    """
    _check_port(config.host, config.port)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
        from gradio import processing_utils
        from starlette.middleware import Middleware
    except ImportError:
        raise ImportError("the page needs `pip install ddpm_pipeline[app]`") from None

    from ddpm_pipeline.app.page import make_page

    processing_utils.async_ssrf_protected_download = _fetch_nothing
    page = make_page(config)
    page.launch(
        server_name=config.host,
        server_port=config.port,
        inbrowser=config.open_browser,
        share=False,
        prevent_thread_lock=True,
        show_error=True,
        quiet=True,
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        max_file_size="20mb",
        theme=gradio.themes.Default(**_FONTS),
        app_kwargs={"middleware": [Middleware(_AskNoOthers, shown_by=shown_by)]},
    )
    return page.close
