"""The Open Inference Protocol over HTTP: infer as a bare ASGI application, everything else behind it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import orjson

from edgemask_runtime.about import Outputs
from edgemask_runtime.api.control import Control
from edgemask_runtime.api.doors import Decode, Door, version_of
from edgemask_runtime.api.errors import RequestError
from edgemask_runtime.api.guard import Guard
from edgemask_runtime.api.oip import HEADER_LENGTH, Buffer, InferRequest, InferResponse, body_limit, decode, encode
from edgemask_runtime.api.regions import Regions
from edgemask_runtime.web import PAGE

MAX_IN_FLIGHT = 64
MAX_IN_FLIGHT_BYTES = 64 << 20
MAX_IMAGE_BYTES = 16 << 20
THREADS_PER_MODEL = 2
# What is smaller is copied into one message, which costs less than another call of the system.
JOINED_BYTES = 1 << 15

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("edgemaskd")


@dataclass(frozen=True)
class Response:
    """A response: status, body in parts, and the headers beyond its length."""

    status: int
    body: list[Buffer]
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


class Api:
    """Serves models; each has threads of its own, and few requests wait."""

    def __init__(self, control: Control, guard: Guard) -> None:
        self.control, self.doors = control, control.doors
        self._guard = guard
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._in_flight = self._in_flight_bytes = 0
        self._rest: AsgiApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            headers: dict[bytes, bytes] = dict(scope["headers"])
            self._guard.check(headers, is_open=scope["path"] in PAGE)
            named = _infer_target(scope["path"])
            if named is None:
                await self._other(scope, receive, send)
                return
            _check_method(scope["method"], "POST")
            response = await self._infer(self.doors.find(*named), headers, receive)
        except RequestError as error:
            response = refusal(error)
        await _send(send, response)

    def close(self) -> None:
        """Finish the inferences in hand and end their threads."""
        for threads in self._threads.values():
            threads.shutdown()
        if self.control.regions:
            self.control.regions.unregister()

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._rest is None:
            # Why here: Starlette takes as long to import as all of uvicorn, and the first frame need not wait for it.
            from edgemask_runtime.api.routes import application

            self._rest = application(self)
        path = scope["path"].rstrip("/") or "/"
        await self._rest(scope if path == scope["path"] else {**scope, "path": path}, receive, send)

    async def _infer(self, door: Door, headers: Mapping[bytes, bytes], receive: Receive) -> Response:
        received_ns = time.perf_counter_ns()
        kind = headers.get(b"content-type", b"")
        header_length = headers.get(HEADER_LENGTH.encode())
        length = None if header_length is None else header_length.decode("latin-1")
        is_image = kind.startswith(b"image/")
        limit = MAX_IMAGE_BYTES if is_image else body_limit(door.about.manifest.frame, binary=length is not None)
        size = _announced(headers, limit)
        self._enter(size)
        try:
            body = await read_body(receive, limit)
            answer = self._answer_image if is_image else self._answer
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool(door.name), answer, door, body, length, received_ns)
        finally:
            self._in_flight -= 1
            self._in_flight_bytes -= size

    def _enter(self, size: int) -> None:
        full = self._in_flight_bytes + size > MAX_IN_FLIGHT_BYTES and self._in_flight
        if self._in_flight >= MAX_IN_FLIGHT or full:
            raise RequestError(503, f"{self._in_flight} requests are being answered already; try again")
        self._in_flight += 1
        self._in_flight_bytes += size

    def _pool(self, name: str) -> ThreadPoolExecutor:
        if name not in self._threads:
            self._threads[name] = ThreadPoolExecutor(THREADS_PER_MODEL, thread_name_prefix=f"http-{name}")
        return self._threads[name]

    def _answer(self, door: Door, body: Buffer, length: str | None, received_ns: int) -> Response:
        regions = self.control.regions
        return _answered(door, lambda manifest: decode(body, length, manifest, regions), regions, received_ns)

    def _answer_image(self, door: Door, body: Buffer, _: str | None, received_ns: int) -> Response:
        # Why here: Pillow is an extra, and few send images.
        from edgemask_runtime.api.pictures import decode_picture

        return _answered(door, lambda manifest: decode_picture(bytes(body), manifest), None, received_ns)


def _answered(door: Door, decoded: Decode, regions: Regions | None, received_ns: int) -> Response:
    def encoded_as(request: InferRequest, outputs: Outputs) -> InferResponse:
        described = {"model_name": door.name, "model_version": version_of(outputs.about)}
        return encode(request, outputs, described, regions)

    encoded = door.answer(decoded, encoded_as, received_ns)
    if encoded.header_length is None:
        return Response(200, encoded.parts)
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(encoded.header_length)}
    return Response(200, encoded.parts, headers)


def refusal(error: RequestError) -> Response:
    """What a client that is refused gets."""
    headers = {"content-type": "application/json"}
    headers |= {"www-authenticate": "Bearer"} if error.status == 401 else {}
    headers |= {"retry-after": "1"} if error.status == 503 else {}
    headers |= {"allow": "POST"} if error.status == 405 else {}
    if error.status >= 500:
        log.warning("http: %s", error.message)
    return Response(error.status, [orjson.dumps({"error": error.message})], headers)


async def read_body(receive: Receive, limit: int) -> Buffer:
    """The whole body; RequestError when it is longer than `limit` or the client goes away."""
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "the client went away")
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _announced(headers: Mapping[bytes, bytes], limit: int) -> int:
    """The body's length as its header states it, or the largest that may come."""
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise RequestError(415, "compressed bodies are not read")
    stated = headers.get(b"content-length")
    if stated is None:
        return limit
    if len(stated) > 12 or int(stated) > limit:
        raise _too_large(limit)
    return int(stated)


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"the body is larger than the {limit} bytes that are read here")


def _infer_target(path: str) -> tuple[str, str] | None:
    """Model and version of /v2/models/NAME[/versions/VERSION]/infer, None for other paths."""
    parts = path.rstrip("/").split("/")
    if parts[-1] != "infer" or parts[:3] != ["", "v2", "models"]:
        return None
    if len(parts) == 5:
        return parts[3], ""
    return (parts[3], parts[5]) if len(parts) == 7 and parts[4] == "versions" else None


def _check_method(method: str, allowed: str) -> None:
    if method != allowed:
        raise RequestError(405, f"this takes {allowed}, not {method}")


async def _send(send: Send, response: Response) -> None:
    length = sum(map(len, response.body))
    parts = response.body if length > JOINED_BYTES else [b"".join(response.body)]
    headers = {**response.headers, "content-length": str(length)}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": raw})
    for at, part in enumerate(parts, 1):
        await send({"type": "http.response.body", "body": part, "more_body": at < len(parts)})
