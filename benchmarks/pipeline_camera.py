"""A network camera: Motion JPEG over HTTP at a steady pace, the newest picture to whoever is ready for one."""

from __future__ import annotations

import io
import multiprocessing
import socket
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Condition, Thread
from typing import Any

from PIL import Image

from benchmarks.pipeline_model import HEIGHT, WIDTH
from edgemask_runtime.cameras import camera_settings, open_camera
from edgemask_runtime.manifest import FrameInput

CYCLE = 1024
QUALITY = 85
HEADER = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
PART = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"


def pictures() -> list[bytes]:
    """One cycle of the test pattern as JPEG files; picture k shows the number k."""
    frame = FrameInput(WIDTH, HEIGHT, "rgb", name="frame", dtype="uint8", batch=None)
    camera = open_camera("pattern", camera_settings("pattern")(fps=0, frames=CYCLE), frame)
    return [_jpeg(shot.read()) for shot in camera]


def _jpeg(pixels: Any) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "JPEG", quality=QUALITY)
    return held.getvalue()


class NetworkCamera:
    """Runs in a process of its own; `captured_ns[k]` is the monotonic time at which picture k was last taken."""

    def __init__(self, files: list[bytes], fps: float) -> None:
        self.captured_ns: Any = multiprocessing.Array("q", CYCLE, lock=False)
        ours, theirs = multiprocessing.Pipe()
        arguments = (files, fps, self.captured_ns, theirs)
        self._process = multiprocessing.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        self.url = f"http://127.0.0.1:{ours.recv()}/camera.mjpg"

    def __enter__(self) -> NetworkCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()


class _Shutter:
    """The picture that is the newest now."""

    def __init__(self) -> None:
        self.taken = Condition()
        self.number = -1

    def after(self, number: int) -> int:
        """Wait for a picture that is newer than this one."""
        with self.taken:
            self.taken.wait_for(lambda: self.number > number)
            return self.number


def _serve(files: list[bytes], fps: float, captured_ns: Any, told: Connection) -> None:
    shutter = _Shutter()
    listener = socket.create_server(("127.0.0.1", 0))
    told.send(listener.getsockname()[1])
    Thread(target=_accept, args=(listener, shutter, files), daemon=True).start()
    due_s = time.monotonic()
    while True:
        due_s = max(due_s + 1 / fps, time.monotonic())
        time.sleep(max(0.0, due_s - time.monotonic()))
        with shutter.taken:
            shutter.number += 1
            captured_ns[shutter.number % CYCLE] = time.monotonic_ns()
            shutter.taken.notify_all()


def _accept(listener: socket.socket, shutter: _Shutter, files: list[bytes]) -> None:
    while True:
        client, _ = listener.accept()
        Thread(target=_send, args=(client, shutter, files), daemon=True).start()


def _send(client: socket.socket, shutter: _Shutter, files: list[bytes]) -> None:
    """As cameras do: while a client is slow, pictures pass it by; what is in the sockets' buffers is its to read."""
    sent = -1
    with client, suppress(OSError):
        client.recv(4096)
        client.sendall(HEADER)
        while True:
            sent = shutter.after(sent)
            picture = files[sent % CYCLE]
            client.sendall(PART % len(picture) + picture + b"\r\n")
