"""The HTTP server in a thread of its own, on a socket that is bound before anything starts."""

from __future__ import annotations

import asyncio
import logging
import socket
from threading import Thread
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgemask_runtime.addresses import Address
from edgemask_runtime.api.access import Tls
from edgemask_runtime.api.http import Api
from edgemask_runtime.api.oip import Buffer
from edgemask_runtime.errors import UserError

GRACE_S = 3
MAX_CONNECTIONS = 256
PATIENCE_S = 10.0
"""How long a request may take to arrive, and an answer to be taken."""
PAUSE_BYTES = 1 << 20
SMALL_BYTES = 1 << 15
HEAD = b"HTTP/1.1 "


def bind(address: Address) -> socket.socket:
    """Bind the address (port 0: any free one); UserError unless it is free."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # Why name the protocol: asyncio sets TCP_NODELAY only then, and without it every answer waits 40 ms for an ACK.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address.host, address.port))
        # Why so early: on Linux two sockets may bind one port with SO_REUSEADDR until one of them listens.
        bound.listen()
    except OSError as error:
        bound.close()
        raise UserError(f"cannot listen on {address}: {error.strerror}", hint="port 0 takes any free one") from error
    return bound


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol with an end to its patience: a client that stops in a request or an answer is cut off.

    Without it, as many connections as are allowed, each with half a request, would keep everybody else out.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        self._request = Patience(self.loop, transport)
        self._answer = Patience(self.loop, transport)
        super().connection_made(cast(asyncio.Transport, Joined(transport)))
        self._request.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._request.end()
        self._answer.end()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Wait for the request's end."""
        super().on_message_begin()
        self._request.begin()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body; a frame is taken whole, where uvicorn would stop reading and begin again."""
        if self.cycle.response_complete:
            return
        self.cycle.body += body
        if len(self.cycle.body) > PAUSE_BYTES:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Wait no more: the daemon has its time now."""
        self._request.end()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Wait for the client to take its answer."""
        super().pause_writing()
        self._answer.begin()

    def resume_writing(self) -> None:
        """Wait no more."""
        self._answer.end()
        super().resume_writing()


class Joined:
    """A transport that sends an answer's head together with what follows it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: Buffer) -> None:
        """Keep a head until the next part; send a small part behind its head, a large one after it."""
        if not self._head and isinstance(data, bytes) and data.startswith(HEAD) and data.endswith(b"\r\n\r\n"):
            self._head = data
            return
        if self._head and len(data) < SMALL_BYTES:
            data = b"".join((self._head, data))
        elif self._head:
            self._transport.write(self._head)
        self._head = b""
        self._transport.write(data)

    def close(self) -> None:
        """Send what is left, then close."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""
        self._transport.close()


class Patience:
    """Cuts a connection off when what it waits for takes too long."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop, self._transport = loop, transport
        self._waiting: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Wait from now on, unless it waits already."""
        if self._waiting is None:
            # Why not close: that would first send what the client does not take.
            self._waiting = self._loop.call_later(PATIENCE_S, self._transport.abort)

    def end(self) -> None:
        """It has come."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


class Server:
    """Serves the API on the socket until `close`."""

    def __init__(self, api: Api, bound: socket.socket, tls: Tls | None = None) -> None:
        self.url = f"http{'s' if tls else ''}://{Address(*bound.getsockname()[:2])}"
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        options: dict[str, Any] = {"loop": "asyncio", "http": PatientProtocol, "ws": "none", "lifespan": "off"}
        config = uvicorn.Config(
            api,
            **options,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=GRACE_S,
        )
        config.load()
        config.ssl = tls.context() if tls else None
        self._server = uvicorn.Server(config)
        self._api = api
        self._thread = Thread(target=self._serve, args=(bound,), name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer what is in hand, then stop."""
        self._server.should_exit = True
        self._thread.join()
        self._api.close()

    def _serve(self, bound: socket.socket) -> None:
        asyncio.run(self._server.serve(sockets=[bound]))
