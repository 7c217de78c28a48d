"""What each sink costs at a camera's pace: processor time an answer, threads and all, beside the bare libraries.

    python -m benchmarks.sinks [--seconds 40] [--rate 30] [--json]

Every sink gets the same answer (three classes and their scores) again and again, and takes its turn for a second at a
time, so that a busy machine hurts all alike; what the loop takes with a sink that does nothing is taken off. The
lower quartile of the turns is told. The broker, readers of the socket and receivers on the bus are other processes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import can
import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.manifests import MODEL, manifest_of
from edgemask.listing import columns
from edgemask_runtime.answers import Answer, Reading
from edgemask_runtime.frames import wall_clock
from edgemask_runtime.labels import Guess
from edgemask_runtime.manifest import CanRecord, FileRecord, FrameInput, Manifest, OutputRecord
from edgemask_runtime.sinks import SinkContext, open_sink, sink_settings

FRAME = FrameInput(640, 480, "nv12", None, "bt601", "limited", name="frame", dtype="uint8", batch=None)
BUS = {"interface": "udp_multicast", "channel": "239.74.163.2"}
READER = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nwhile s.recv(1 << 16): pass"
CAN = CanRecord("classification", 0x640, False, 0x640, 100)
US_PER_S = 1e6
Deliver = Callable[[Answer], Any]
Maker = Callable[["Place"], Deliver]


class Place:
    """A folder, a broker's port or None, and what is to be closed in the end."""

    def __init__(self, folder: Path, port: int | None, closing: ExitStack) -> None:
        self.folder, self.port, self.closing = folder, port, closing

    def sink(self, kind: str, *, pixels: Any = None, records: tuple[CanRecord, ...] = (), **settings: Any) -> Deliver:
        """A sink of ours, opened."""
        opened = open_sink(
            kind, sink_settings(kind)(**settings), SinkContext(f"bench{os.getpid()}", _manifest(records))
        )
        self.closing.callback(opened.close)
        return lambda answer: opened.write(answer, pixels)


def ours() -> dict[str, Maker]:
    """The sinks by what they are told."""
    noise = np.random.default_rng(0).integers(0, 256, (720, 640), np.uint8)
    fast = CanRecord("classification", 0x641, False, 0x641, 10)
    return {
        "nothing": lambda place: lambda answer: None,
        "jsonl": lambda place: place.sink("jsonl", path=place.folder / "jsonl"),
        "text": lambda place: place.sink("text", path=place.folder / "text"),
        "socket, no reader": lambda place: place.sink("socket", path=place.folder / "idle"),
        "socket, a reader": _read_socket,
        "mqtt, QoS 0": lambda place: place.sink("mqtt", host="127.0.0.1", port=place.port, qos=0),
        "mqtt, QoS 1": lambda place: place.sink("mqtt", host="127.0.0.1", port=place.port, qos=1, client_id="one"),
        "can, every 100 ms": lambda place: place.sink("can", records=(CAN,), **BUS),
        "can, every 10 ms": lambda place: place.sink("can", records=(fast,), **BUS),
        "snapshots, none due": lambda place: place.sink("snapshots", pixels=noise, folder=place.folder / "none"),
        "snapshots, one a second": lambda place: place.sink(
            "snapshots", pixels=noise, folder=place.folder / "seen", when=("always",), min_free_mb=0
        ),
    }


def peers() -> dict[str, Maker]:
    """The bare libraries, as their documentation has them."""
    return {"json.dumps and print": _json_file, "paho, QoS 1": _paho, "python-can, a frame an answer": _python_can}


def _read_socket(place: Place) -> Deliver:
    path = place.folder / "read"
    deliver = place.sink("socket", path=path)
    place.closing.enter_context(_child([sys.executable, "-c", READER, str(path)]))
    return deliver


def _json_file(place: Place) -> Deliver:
    from dataclasses import asdict

    file = place.closing.enter_context((place.folder / "print").open("a"))
    return lambda answer: print(json.dumps(asdict(answer)), file=file, flush=True)


def _paho(place: Place) -> Deliver:
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.connect("127.0.0.1", place.port or 0)
    client.loop_start()
    place.closing.callback(client.loop_stop)
    place.closing.callback(client.disconnect)
    return lambda answer: client.publish("bench/paho", answer.to_json(), qos=1, retain=True)


def _python_can(place: Place) -> Deliver:
    bus = place.closing.enter_context(can.Bus(**BUS, ignore_config=True))  # type: ignore[arg-type]
    return lambda answer: bus.send(can.Message(arbitration_id=0x642, data=bytes(8)))


def measure(rate: float, seconds: float) -> dict[str, dict[str, float]]:
    """Microseconds an answer, and the share of one core that this is at `rate`; every sink in turn."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as closing:
        port = closing.enter_context(_broker(Path(folder)))
        makers = {**ours(), **peers()}
        names = [name for name in makers if port or not name.startswith(("mqtt", "paho"))]
        turns: dict[str, list[float]] = {name: [] for name in names}
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for name in names:
                turns[name].append(_turn(makers[name], Path(folder), port, rate))
    quartiles = {name: float(np.percentile(values, 25)) for name, values in turns.items()}
    floor = quartiles.pop("nothing")
    costs = {name: max(0.0, value - floor) for name, value in quartiles.items()}
    return {name: {"us": cost, "share": cost * rate / US_PER_S} for name, cost in costs.items()}


def _turn(make: Maker, folder: Path, port: int | None, rate: float) -> float:
    """Processor time an answer in microseconds, over a second's answers, of a sink that was opened just for it."""
    with ExitStack() as closing:
        deliver = make(Place(folder, port, closing))
        _settle(deliver, rate)
        begun, count = time.process_time(), int(rate)
        _paced(deliver, rate, count)
        return (time.process_time() - begun) / count * US_PER_S


def _settle(deliver: Deliver, rate: float) -> None:
    """Let it connect: deliver until it works, and then for a little while."""
    for _ in range(500):
        try:
            deliver(_answer(0))
            break
        except Exception:
            time.sleep(0.02)
    _paced(deliver, rate, int(rate) // 3)


def _paced(deliver: Deliver, rate: float, count: int) -> None:
    due_s = time.monotonic()
    for frame in range(count):
        deliver(_answer(frame))
        due_s += 1 / rate
        time.sleep(max(0.0, due_s - time.monotonic()))


def _answer(frame: int) -> Answer:
    top = tuple(Guess(index, f"class {index}", 0.3123 / (index + 1)) for index in range(3))
    reading = Reading(top, False, {"top-indices": [0, 1, 2], "top-scores": [0.3123, 0.1562, 0.1041]})
    now_ns = time.monotonic_ns()
    return Answer("bench", frame, "camera", now_ns, wall_clock(now_ns), "ab" * 32, 12.5, 8.25, 0, reading)


def _manifest(records: tuple[CanRecord, ...]) -> Manifest:
    output = OutputRecord("top-indices", "int32", (None, 3), "top-indices")
    files = {MODEL: FileRecord("0" * 64, 0)}
    return manifest_of("bench", FRAME, output, max_age_ms=60_000, files=files, can=records)


@contextmanager
def _broker(folder: Path) -> Iterator[int | None]:
    """The port of a Mosquitto of our own; None where there is none to start."""
    found = shutil.which("mosquitto", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
    if found is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    (folder / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")
    with _child([found, "-c", str(folder / "mosquitto.conf")]):
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            time.sleep(0.02)
        yield port


@contextmanager
def _child(command: list[str]) -> Iterator[None]:
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as child:
        try:
            yield
        finally:
            child.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=30)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.rate, arguments.seconds)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    rows = [(name, f"{cost['us']:.0f}", f"{100 * cost['share']:.2f} %") for name, cost in found.items()]
    print(columns(("sink", "us an answer", f"of a core at {arguments.rate:g}/s"), rows))


if __name__ == "__main__":
    main()
