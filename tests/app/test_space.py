"""A Space as it was pushed: its own app.py shows the model of the Hub."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from helpers.browsers import Page, chromium, until
from helpers.hubs import running_hub
from helpers.paths import PACKAGE
from helpers.pipelines import pipeline
from helpers.unets import make_tiny_unet

PUSH = "import sys; from ddpm_pipeline.cli.commands import main; sys.exit(main(sys.argv[1:]))"
WITH_APP = ("--with_app", "--app_requirement", "ddpm_pipeline[app] @ https://git.example/a.zip")


def answer(address: str) -> dict[str, str] | None:
    """Give the headers of the page; None if nobody answers yet."""
    try:
        with urlopen(address, timeout=5) as response:
            return dict(response.headers)
    except OSError:
        return None


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.timeout(300)
def test_a_pushed_space_draws_with_the_model_of_the_hub(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="Gradio is not installed")
    model = tmp_path / "model"
    pipeline(make_tiny_unet(1), num_train_timesteps=10).save_pretrained(model)
    with running_hub(tmp_path / "hub") as hub, chromium() as browser:
        path = {"PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), *filter(None, sys.path)])}
        hub.python(PUSH, "push", model, "alice/digits", *WITH_APP, extra=path)
        app = tmp_path / "app.py"
        app.write_bytes(hub.content("spaces/alice/digits", "app.py"))
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        environment = hub.environment(token=None) | path | {"GRADIO_SERVER_PORT": str(port)}
        process = subprocess.Popen([sys.executable, str(app)], env=environment, cwd=tmp_path)
        try:
            address = f"http://127.0.0.1:{port}/"
            headers = until(lambda: answer(address))
            policy = headers["content-security-policy"]
            assert "frame-ancestors https://huggingface.co" in policy
            page = Page(browser, address)
            page.click("#draw")
            until(lambda: "ms for each image" in page.said())
        finally:
            process.kill()
            process.wait()
