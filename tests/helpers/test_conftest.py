"""The guard that keeps the tests off the network lets loopback through and nothing else."""

from __future__ import annotations

import socket

import pytest


def test_a_connection_to_another_host_is_refused() -> None:
    with socket.socket() as client, pytest.raises(RuntimeError, match="must not use the network"):
        client.connect(("192.0.2.1", 80))


def test_a_name_is_not_looked_up() -> None:
    with pytest.raises(RuntimeError, match=r"getaddrinfo to 'huggingface\.co'"):
        socket.getaddrinfo("huggingface.co", 443)


def test_a_datagram_is_refused() -> None:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as client,
        pytest.raises(RuntimeError, match=r"sendto to '192\.0\.2\.1'"),
    ):
        client.sendto(b"?", ("192.0.2.1", 53))


def test_loopback_is_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted:
            client.sendall(b"hello")
            assert accepted.recv(5) == b"hello"
