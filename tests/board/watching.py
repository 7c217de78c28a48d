"""What the host sees of the board: its bus decoded by the DBC, its answers, its door through a tunnel."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any

import cantools
import httpx
import numpy as np

from .machine import Board

MODEL = "/v2/models/cabin"
FRAME = re.compile(r"\(([\d.]+)\) +vcan0 +([0-9A-F]+)#([0-9A-F]*)")


def frames_on_the_bus(board: Board, count: int, timeout_s: float = 120) -> list[tuple[float, int, bytes]]:
    """The next `count` frames on the board's bus, as candump logs them: time, identifier, data."""
    told = board.shell(f"timeout {timeout_s:.0f} candump -L -n {count} vcan0", check=False, timeout_s=timeout_s + 300)
    return [(float(time_s), int(number, 16), bytes.fromhex(data)) for time_s, number, data in FRAME.findall(told)]


def decoded(dbc: Path, frames: list[tuple[float, int, bytes]]) -> list[dict[str, Any]]:
    """The frames' signals by name, as the DBC says."""
    database = cantools.database.load_file(dbc)
    return [dict(database.decode_message(number, data)) for _, number, data in frames]  # type: ignore[union-attr,arg-type]


@contextmanager
def door(board: Board) -> Iterator[str]:
    """The daemon's door from here, through ssh; it stays while the board does."""
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        port = any_port.getsockname()[1]
    # Why sleep: a line of the tunnel's own; the board's end ends it.
    forward = ["-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:127.0.0.1:8700"]
    # Why quiet: each question while nobody listens there would be told of.
    command = ["ssh", "-q", "-F", str(board.ssh_config), *forward, "root@board", "echo open; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tunnel:
        assert tunnel.stdout is not None
        assert tunnel.stdout.readline() == b"open\n"
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            tunnel.kill()


def picture(seed: int = 0) -> np.ndarray[Any, Any]:
    """A frame of noise as the model takes it."""
    return np.random.default_rng(seed).integers(0, 256, (1, 180, 320, 1), dtype=np.uint8)


def ask(url: str, pixels: np.ndarray[Any, Any], timeout_s: float = 120) -> dict[str, Any]:
    """One Open Inference Protocol request in JSON, as a client without any library of ours makes it."""
    tensor = {"name": "frame", "shape": list(pixels.shape), "datatype": "UINT8", "data": pixels.ravel().tolist()}
    answer = httpx.post(f"{url}{MODEL}/infer", json={"inputs": [tensor]}, timeout=timeout_s)
    answer.raise_for_status()
    return dict(answer.json())


@dataclass
class Service:
    """What somebody who asks all the time gets: the moments of good answers."""

    good: list[float] = field(default_factory=list)

    @property
    def longest_gap_s(self) -> float:
        """The longest time without a good answer, between two good ones."""
        return max((later - earlier for earlier, later in pairwise(self.good)), default=0.0)


@contextmanager
def asked_all_the_time(url: str) -> Iterator[Service]:
    """Ask whether the model is ready, once a second, while the context lasts."""
    service, over = Service(), Event()

    def keep_asking() -> None:
        while not over.wait(1):
            with suppress(httpx.HTTPError):
                httpx.get(f"{url}{MODEL}/ready", timeout=60).raise_for_status()
                service.good.append(time.monotonic())

    thread = Thread(target=keep_asking)
    thread.start()
    try:
        yield service
    finally:
        over.set()
        thread.join()
