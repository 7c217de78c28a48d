"""The same frame by every way in: requests are made once, and answers are read but not understood."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.serving.servers import Running
from edgemask_runtime.api.grpc_messages import CLASSES, SERVICE
from edgemask_runtime.ring.client import LocalModel

FRAME = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
OUTPUT_BYTES = {"identity": FRAME.nbytes, "mobilenet": 4000}
LENGTH = "Inference-Header-Content-Length"

Ask = Callable[[], Any]
"""One request and its answer."""


class Wire:
    """One connection that stays open, and requests that are bytes already."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(1 << 22)

    def ask(self, request: bytes) -> bytes:
        """The answer's body."""
        self._socket.sendall(request)
        view, got = memoryview(self._buffer), 0
        while (head := self._buffer.find(b"\r\n\r\n", 0, got)) < 0:
            got += self._received(view[got:])
        lines = bytes(view[:head]).lower().split(b"\r\n")
        if b" 200 " not in lines[0] + b" ":
            raise RuntimeError(bytes(view[:got])[:500])
        size = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
        while got < head + 4 + size:
            got += self._received(view[got:])
        return bytes(view[head + 4 : got])

    def close(self) -> None:
        self._socket.close()

    def _received(self, view: memoryview) -> int:
        count = self._socket.recv_into(view)
        if not count:
            raise RuntimeError("the server went away")
        return count


def post(path: str, body: bytes, **headers: Any) -> bytes:
    lines = {"Host": "127.0.0.1", "Content-Length": len(body), "Content-Type": "application/json", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def _entry(**more: Any) -> dict[str, Any]:
    return {"name": "frame", "shape": list(FRAME.shape), "datatype": "UINT8", **more}


def binary(name: str) -> bytes:
    entry = _entry(parameters={"binary_data_size": FRAME.nbytes})
    header = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    headers = {LENGTH: len(header), "Content-Type": "application/octet-stream"}
    return post(f"/v2/models/{name}/infer", header + FRAME.tobytes(), **headers)


def plain_json(name: str) -> bytes:
    document = {"inputs": [_entry(data=FRAME.ravel().tolist())]}
    return post(f"/v2/models/{name}/infer", json.dumps(document, separators=(",", ":")).encode())


def other_json(path: str, data: Any) -> bytes:
    return post(path, json.dumps({"data": data}, separators=(",", ":")).encode())


@contextmanager
def over_http(port: int, request: bytes) -> Iterator[Ask]:
    wire = Wire(port)
    try:
        yield lambda: wire.ask(request)
    finally:
        wire.close()


@contextmanager
def over_shared_memory(port: int, name: str) -> Iterator[Ask]:
    """Frame and output lie in one region; the request is its names alone."""
    number, size = uuid.uuid4().hex, OUTPUT_BYTES[name]
    path = Path("/dev/shm") / f"edgemask-bench-{number}"
    path.write_bytes(FRAME.tobytes() + bytes(size))
    wire = Wire(port)
    region = {"key": f"/{path.name}", "offset": 0, "byte_size": FRAME.nbytes + size}
    wire.ask(post(f"/v2/systemsharedmemory/region/{number}/register", json.dumps(region).encode()))
    place = {"shared_memory_region": number, "shared_memory_byte_size": FRAME.nbytes}
    target = {"shared_memory_region": number, "shared_memory_byte_size": size, "shared_memory_offset": FRAME.nbytes}
    document = {"inputs": [_entry(parameters=place)], "outputs": [{"name": "out", "parameters": target}]}
    request = post(f"/v2/models/{name}/infer", json.dumps(document).encode())
    try:
        wire.ask(request)
        if name == "identity" and path.read_bytes()[FRAME.nbytes :] != FRAME.tobytes():
            raise RuntimeError("the output in shared memory is not the frame")
        yield lambda: wire.ask(request)
    finally:
        wire.ask(post(f"/v2/systemsharedmemory/region/{number}/unregister", b""))
        wire.close()
        path.unlink()


@contextmanager
def over_grpc(port: int, name: str) -> Iterator[Ask]:
    message = CLASSES["ModelInferRequest"](model_name=name, raw_input_contents=[FRAME.tobytes()])
    message.inputs.add(name="frame", datatype="UINT8", shape=FRAME.shape)
    request = message.SerializeToString()
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        yield lambda: infer(request, timeout=120)


@contextmanager
def over_ring(path: Path) -> Iterator[Ask]:
    with LocalModel.connect(path, timeout_s=120) as model:

        def ask() -> Any:
            model.frame[:] = FRAME[0]
            return model.infer()

        yield ask


def check_identity(way: str, answer: Any) -> None:
    """RuntimeError unless the answer holds the frame: a server that sends none is fast."""
    if way in ("shared memory", "in-process"):
        return
    if way == "JSON":
        found = json.loads(answer)
        values = found.get("out") or found["outputs"][0]["data"] if isinstance(found, dict) else found
        held = np.array_equal(np.array(values).ravel(), FRAME.ravel())
    else:
        held = FRAME.tobytes() in (answer["out"].tobytes() if way == "local ring" else answer)
    if not held:
        raise RuntimeError("the answer is not the frame")


def ways(server: str, running: Running, name: str) -> dict[str, Callable[[], Any]]:
    """The ways into a server, each a context that gives what asks once."""
    started = running.started
    if server == "LitServe":
        return {"JSON": lambda: over_http(started.http, other_json("/predict", FRAME.ravel().tolist()))}
    if server == "BentoML":
        return {"JSON": lambda: over_http(started.http, other_json("/infer", FRAME.tolist()))}
    found: dict[str, Callable[[], Any]] = {
        "binary": lambda: over_http(started.http, binary(name)),
        "JSON": lambda: over_http(started.http, plain_json(name)),
    }
    if server in ("edgemask", "Triton"):
        found["shared memory"] = lambda: over_shared_memory(started.http, name)
    if started.grpc:
        port = started.grpc
        found["gRPC"] = lambda: over_grpc(port, name)
    if started.ring:
        ring = started.ring
        found["local ring"] = lambda: over_ring(ring)
    return found
