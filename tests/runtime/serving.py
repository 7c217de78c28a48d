"""The API on a real socket in this process, over models that a test makes."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from edgemask_runtime.api.opening import control_of, open_door
from edgemask_runtime.api.repository import Repository
from edgemask_runtime.predictor import Served
from edgemask_runtime.settings import DoorSettings
from edgemask_runtime.telemetry import Telemetry
from edgemask_runtime.web.dashboard import Dashboard

WAIT_S = 60


@contextmanager
def serving(models: Mapping[str, Served], repository: Repository | None = None) -> Iterator[httpx.Client]:
    """Serve on any free port, and stop in the end."""
    server = open_door("http", control_of(models, repository), DoorSettings("127.0.0.1:0"))
    try:
        with httpx.Client(base_url=server.url, timeout=WAIT_S) as client:
            yield client
    finally:
        server.close()


def connect(client: httpx.Client) -> socket.socket:
    """A plain connection to the same server."""
    address = urlsplit(str(client.base_url))
    return socket.create_connection((address.hostname, address.port), timeout=WAIT_S)


def request_bytes(path: str, body: bytes = b"", method: str = "POST", **headers: Any) -> bytes:
    """A request as it goes over the wire."""
    lines = {"Host": "localhost", "Content-Length": len(body), **{k.replace("_", "-"): v for k, v in headers.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def everything(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@contextmanager
def serving_dashboard(telemetry: Telemetry, settings: DoorSettings) -> Iterator[httpx.Client]:
    """Serve the page alone, as the settings say."""
    server = open_door("http", control_of({}, dashboard=Dashboard(telemetry)), settings)
    try:
        with httpx.Client(base_url=server.url, timeout=WAIT_S) as client:
            yield client
    finally:
        server.close()
