"""The HTTP side: which function answers which request, and what goes wrong on demand."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from helpers.loopback_hub import control, reading, writing, xet
from helpers.loopback_hub.faults import Fault, Faults
from helpers.loopback_hub.store import TOKENS, HubError, Store

__all__ = ["Request", "serve"]

NAME = r"((?:spaces/)?[\w.-]+/[\w.-]+)"
# The name of a Space begins with "spaces/" here.
MODEL = f"/api/(?:models/|(?=spaces/)){NAME}"
READ = ("GET", "HEAD")
Route = tuple[tuple[str, ...], str, Callable[..., None]]
ROUTES: list[Route] = [
    (("GET", "POST"), r"/_test/(\w+)", control.answer),
    (("GET",), "/api/whoami-v2", reading.whoami),
    (READ, "/api/telemetry/.*", reading.nothing),
    (("GET",), "/api/agent-harnesses", reading.harnesses),
    (READ, MODEL, reading.info),
    (READ, r"/api/models/([\w.-]+)", reading.info),
    (READ, f"{MODEL}/revision/([^/]+)", reading.info),
    (("GET",), f"{MODEL}/tree/([^/]+)(/.*)?", reading.tree),
    (("POST",), f"{MODEL}/paths-info/([^/]+)", reading.paths_info),
    (("GET",), f"{MODEL}/refs", reading.references),
    (("GET",), f"{MODEL}/commits/([^/]+)", reading.history),
    (READ, "/_cdn/([0-9a-f]{64})", reading.content),
    (READ, f"/{NAME}/resolve/([^/]+)/(.+)", reading.resolve),
    (("POST",), "/api/repos/create", writing.create),
    (("DELETE",), "/api/repos/delete", writing.delete),
    (("PUT",), f"{MODEL}/settings", writing.settings),
    (("POST",), "/api/validate-yaml", writing.validate_yaml),
    (("POST",), f"{MODEL}/preupload/([^/]+)", writing.preupload),
    (("POST",), f"/{NAME}\\.git/info/lfs/objects/batch", writing.lfs_batch),
    (("PUT",), "/_lfs/([0-9a-f]{64})", writing.lfs_upload),
    (("POST",), f"/{NAME}\\.git/info/lfs/objects/verify", writing.lfs_verify),
    (("POST",), f"{MODEL}/commit/([^/]+)", writing.commit),
    (("POST", "DELETE"), f"{MODEL}/tag/([^/]+)", writing.tag),
    (("POST", "DELETE"), f"{MODEL}/branch/([^/]+)", writing.branch),
    (("POST",), f"{MODEL}/discussions", writing.open_pull_request),
    (("GET",), f"{MODEL}/discussions/(\\d+)", writing.pull_request),
    (("GET",), f"{MODEL}/xet-write-token/([^/]+)", xet.write_token),
    (("GET",), f"{MODEL}/xet-read-token/([^/]+)", xet.read_token),
]


class Request(BaseHTTPRequestHandler):
    """One request at a time of one connection."""

    protocol_version = "HTTP/1.1"
    store: Store
    faults: Faults
    log: list[dict[str, Any]]
    secret = secrets.token_hex(8)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def handle_any(self) -> None:
        """Answer a request, or fail it as a test asked."""
        url = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.base = f"http://127.0.0.1:{self.server.server_port}"
        self.is_read = self.is_cut = False
        self.record = {"method": self.command, "path": self.path}
        self.record["authorised"] = "Authorization" in self.headers
        if not url.path.startswith("/_test/"):
            self.log.append(self.record)
        self.fault = self.faults.take(self.command, self.path)
        try:
            if not self._injected(self.fault):
                self._route(url.path)
        except HubError as error:
            self._send_error(error)
        except ConnectionError:
            self.cut()
        finally:
            self.record["time"] = time.time()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

    def _injected(self, fault: Fault | None) -> bool:
        """Do what a fault says at the start of a request; whether that was all."""
        if fault is None:
            return False
        self.record["fault"] = fault.mode
        if fault.mode == "drop":
            self.cut()
        elif fault.mode == "hang":
            self.faults.wait(fault)
            self.cut()
        elif fault.mode == "status":
            self.read()
            self.send(fault.status, {"error": "injected"})
        else:
            self.is_cut = fault.mode == "lose_answer"
            return False
        return True

    def _route(self, path: str) -> None:
        self.user = self._user()
        for methods, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in methods:
                return answer(self, *match.groups())
        self.record["unknown"] = True
        raise HubError(404, "Sorry, we can't find the page you are looking for.")

    def _user(self) -> str | None:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer":
            return None
        if token not in TOKENS:
            raise HubError(401, "Invalid credentials in Authorization header")
        return TOKENS[token]

    def chunks(self) -> Iterator[bytes]:
        """The body, once."""
        self.is_read = True
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield from self._exactly(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            yield from self._exactly(int(self.headers.get("Content-Length") or 0))

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            part = self.rfile.read(min(size, 1 << 16))
            if not part:
                raise ConnectionError("the client went away")
            size -= len(part)
            yield part

    def read(self) -> bytes:
        """The body."""
        return b"".join(self.chunks())

    def json(self) -> dict[str, Any]:
        """The body as JSON."""
        return json.loads(self.read() or b"{}")

    def send(
        self,
        status: int,
        body: object = b"",
        headers: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> None:
        """Answer with bytes or with JSON, unless the answer shall be lost."""
        if not self.is_read:
            self.read()
        if self.is_cut:
            return self.cut()
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_head(
            status,
            {"Content-Type": content_type, "Content-Length": str(len(content))} | (headers or {}),
        )
        if self.command != "HEAD":
            self.wfile.write(content)
        return None

    def send_head(self, status: int, headers: dict[str, str]) -> None:
        """Answer without what follows the headers."""
        self.record["status"] = status
        self.send_response(status)
        for name, value in {"X-Request-Id": secrets.token_hex(4), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_error(self, error: HubError) -> None:
        headers = {"X-Error-Message": error.message, **error.headers}
        if error.code:
            headers["X-Error-Code"] = error.code
        self.send(error.status, {"error": error.message, **error.extra}, headers)

    def cut(self) -> None:
        """Close the connection."""
        self.close_connection = True
        try:
            self.connection.shutdown(2)
        except OSError:
            return


def serve(port: int, folder: Path) -> ThreadingHTTPServer:
    """A Hub without repositories, on 127.0.0.1."""
    state = {"store": Store(folder), "faults": Faults(), "log": []}
    server = ThreadingHTTPServer(("127.0.0.1", port), type("HubRequest", (Request,), state))
    server.daemon_threads = True
    return server
