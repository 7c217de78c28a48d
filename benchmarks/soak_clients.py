"""Who talks to the daemon during a soak: readers and clients that check every answer, and others that misbehave."""

from __future__ import annotations

import http.client
import io
import json
import os
import random
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from benchmarks.soak_model import FIELDS, HEIGHT, WIDTH
from edgemask_runtime.errors import UserError
from edgemask_runtime.ring.client import LocalModel

CYCLE = 512
WAIT_S = 10.0


def numbered(number: int) -> Any:
    """The frame that shows this number, as the test pattern draws it."""
    bits = number >> np.arange(FIELDS**2).reshape(FIELDS, FIELDS) & 1
    fields = np.kron(bits, np.ones((HEIGHT // 2 // FIELDS, WIDTH // FIELDS), int)) * 255
    return np.concatenate([fields, np.full((HEIGHT // 2, WIDTH), 128)]).astype(np.uint8)[..., np.newaxis]


class Record:
    """What was seen: counts of what went well, and every wrong answer."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.latest_s: dict[str, float] = {}

    def right(self, who: str) -> None:
        """Count an answer that was of its frame."""
        self.counts[who] += 1
        self.latest_s[who] = time.monotonic()

    def check(self, who: str, expected: int, found: int) -> None:
        """Compare the number that was shown with the one that was answered."""
        self.right(who) if expected == found else self.wrong.append(f"{who}: {found} for {expected}")


def read_pattern(record: Record, path: Path, stop: Event) -> None:
    """The pattern's pipeline: its frame numbers are what is shown."""
    for answer in _lines(record, "pattern", path, stop):
        expected = int(answer["name"].rpartition("#")[2]) % (1 << FIELDS**2)
        record.check("pattern", expected, int(answer["outputs"]["number"]))


def read_camera(record: Record, path: Path, stop: Event) -> None:
    """The camera's pipeline: between two answers of one connection as many pictures passed as numbers did."""
    before: tuple[int, int] | None = None
    for answer in _lines(record, "camera", path, stop):
        now = int(answer["name"].rpartition("#")[2]), int(answer["outputs"]["number"])
        if before and now[0] > before[0]:
            record.check("camera", (before[1] + now[0] - before[0]) % CYCLE, now[1])
        before = now


def _lines(record: Record, who: str, path: Path, stop: Event) -> Any:
    while not stop.is_set():
        with suppress(OSError), socket.socket(socket.AF_UNIX) as reader:
            reader.settimeout(1.0)
            reader.connect(str(path))
            yield from _answers(record, who, reader, stop)
        stop.wait(0.1)


def _answers(record: Record, who: str, reader: socket.socket, stop: Event) -> Any:
    held = b""
    while not stop.is_set():
        with suppress(TimeoutError):
            data = reader.recv(1 << 16)
            if not data:
                return
            *whole, held = (held + data).split(b"\n")
            for line in map(json.loads, whole):
                if "frame" in line:
                    yield line
                else:
                    record.counts[f"{who} invalid"] += 1


def ask_http(record: Record, url: str, stop: Event) -> None:
    """Requests with random numbers, one connection for many."""
    place, source = urlsplit(url), random.Random(1)
    while not stop.is_set():
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=WAIT_S)
        with suppress(OSError, http.client.HTTPException):
            while not stop.wait(0.01):
                number = source.randrange(1 << FIELDS**2)
                pixels = numbered(number)
                tensor = {"name": "frame", "datatype": "UINT8", "shape": [1, *pixels.shape]}
                tensor["data"] = pixels.ravel().tolist()
                connection.request("POST", "/v2/models/echo/infer", json.dumps({"inputs": [tensor]}))
                response = connection.getresponse()
                body = json.loads(response.read())
                if response.status == 200:
                    record.check("http", number, int(body["outputs"][0]["data"][0]))
                else:
                    record.counts[f"http {response.status}"] += 1
        connection.close()


def ask_ring(record: Record, path: Path, stop: Event) -> None:
    """Requests with random numbers through shared memory."""
    source = random.Random(2)
    while not stop.is_set():
        with suppress(UserError, OSError), LocalModel.connect(path) as model:
            while not stop.wait(0.01):
                number = source.randrange(1 << FIELDS**2)
                outputs = model.infer(numbered(number)[np.newaxis])
                record.check("ring", number, int(outputs["number"][0]))
        record.counts["ring connections"] += 1
        stop.wait(0.1)


def misbehave(record: Record, url: str, sockets: list[Path], stop: Event) -> None:
    """Half requests, readers that do not read, random bytes, random JSON; each is left hanging for a while."""
    place, source, held = urlsplit(url), random.Random(3), []
    address = (str(place.hostname), int(place.port or 0))
    head = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
    bodies = [b'{"inputs"', head, head + b"{", os.urandom(300), b"GET /v2 HTTP/9\r\n\r\n", head + b"[" * 4000]
    while not stop.wait(0.2):
        with suppress(OSError):
            if source.random() < 0.7:
                held.append(socket.create_connection(address, 1.0))
                held[-1].sendall(source.choice(bodies))
            else:
                path = source.choice(sockets)
                kind = socket.SOCK_SEQPACKET if path.name == "ring.sock" else socket.SOCK_STREAM
                held.append(socket.socket(socket.AF_UNIX, kind))
                held[-1].settimeout(1.0)
                held[-1].connect(str(path))
                if kind == socket.SOCK_SEQPACKET:
                    held[-1].send(os.urandom(64))
            record.counts["misbehaved"] += 1
        while len(held) > 12:
            held.pop(0).close()
    for each in held:
        each.close()


class SoakCamera:
    """A camera on the network that can be taken away and brought back; it begins with number 0 each time."""

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._files = [self._jpeg(number) for number in range(CYCLE)]
        self._listener: socket.socket | None = None
        self._clients: list[socket.socket] = []
        self.port = 0

    def start(self) -> None:
        """Appear on the network, where it was before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Vanish."""
        for each in (self._listener, *self._clients):
            if each:
                # Why not close alone: a thread that waits in accept would keep it open.
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        self._clients.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._clients.append(client)
                Thread(target=self._send, args=(client,), daemon=True).start()

    def _send(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.recv(4096)
            client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
            number = 0
            while True:
                picture = self._files[number % CYCLE]
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
                client.sendall(head + picture + b"\r\n")
                number += 1
                time.sleep(1 / self._fps)

    def _jpeg(self, number: int) -> bytes:
        held = io.BytesIO()
        large = np.kron(numbered(number)[..., 0], np.ones((8, 8), np.uint8))
        Image.fromarray(large).save(held, "JPEG", quality=90)
        return held.getvalue()


class SoakBroker:
    """A Mosquitto that can be killed and started again."""

    def __init__(self, program: str, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        configuration = folder / "mosquitto.conf"
        configuration.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self._command = [program, "-c", str(configuration)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on its port."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        """End it at once."""
        if self._process:
            self._process.kill()
            self._process.wait()


def every(period_s: float, stop: Event, act: Callable[[], None]) -> None:
    """Do it again and again."""
    while not stop.wait(period_s):
        act()
