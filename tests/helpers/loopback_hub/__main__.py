"""Serves until it is killed."""

from __future__ import annotations

import sys
from pathlib import Path

from helpers.loopback_hub.server import serve

if __name__ == "__main__":
    server = serve(int(sys.argv[1]), Path(sys.argv[2]))
    print(server.server_port, flush=True)  # noqa: T201
    server.serve_forever()
