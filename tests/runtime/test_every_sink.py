"""The real daemon with every kind of sink at once, each read by whoever reads it in the field."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import can
import cantools
import pytest

import edgemask_runtime
from edgemask_runtime.manifest import CanRecord

from .answering import PATIENCE_S, eventually
from .brokers import broker, listening, needs_mosquitto
from .running import COMMAND
from .tiny import MakeBundle

CLASSES = CanRecord("classification", 0x300 + os.getpid() % 0x100, False, 77, 20)
SETTINGS = """
schema = 1
[[models]]
name = "tiny"
bundle = "{bundle}"
[[pipelines]]
name = "door"
model = "tiny"
source = {{ kind = "folder", path = "{faces}", fps = 50, loop = true }}
[[pipelines.sinks]]
kind = "jsonl"
path = "answers.jsonl"
[[pipelines.sinks]]
kind = "socket"
path = "answers.sock"
[[pipelines.sinks]]
kind = "mqtt"
host = "127.0.0.1"
port = {port}
discovery = "homeassistant"
[[pipelines.sinks]]
kind = "can"
interface = "udp_multicast"
channel = "239.74.163.2"
[[pipelines.sinks]]
kind = "snapshots"
folder = "seen"
when = ["labels"]
labels = ["cid"]
every_s = 0.1
min_free_mb = 0
"""


@needs_mosquitto
def test_all_sinks_tell_the_same_and_then_that_it_is_over(tmp_path: Path, make_bundle: MakeBundle, faces: Path) -> None:
    try:
        listener = can.Bus("239.74.163.2", "udp_multicast", fd=True, ignore_config=True)
    except (can.CanError, OSError) as error:
        pytest.skip(f"no multicast here: {error}")
    bundle = make_bundle(can=(CLASSES,), max_age_ms=60_000)
    with (
        listener,
        broker(tmp_path) as running,
        listening(running.port) as told,
        socket.socket(socket.AF_UNIX) as reader,
    ):
        settings = tmp_path / "edgemaskd.toml"
        settings.write_text(SETTINGS.format(bundle=bundle, faces=faces, port=running.port))
        with started(settings) as daemon:
            eventually(lambda: reader.connect_ex(str(tmp_path / "answers.sock")) == 0)
            lines = reader.makefile()
            first = json.loads(lines.readline())
            valid = of_validity(listener, "Valid")
            eventually(lambda: list((tmp_path / "seen").glob("*.json")))
            eventually(lambda: told.on("edgemask/door/state"))
            daemon.send_signal(signal.SIGTERM)
            stopped = of_validity(listener, "Stopping")
            assert daemon.wait(PATIENCE_S) == 0
        rest = [json.loads(line) for line in lines]
        eventually(lambda: told.on("edgemask/door/availability")[-1] == "offline")
    lines_written = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    states = [json.loads(state) for state in told.on("edgemask/door/state")]
    snapshots = [json.loads(path.read_text()) for path in (tmp_path / "seen").glob("*.json")]
    answers = [answer for answer in (first, *rest, *lines_written, *states, *snapshots) if "invalid" not in answer]
    assert all(answer["top"][0]["index"] == shown(answer["frame"]) for answer in answers)
    assert {answer["name"] for answer in snapshots} == {"2.pgm"}
    assert rest[-1]["invalid"] == lines_written[-1]["invalid"] == "stopping"
    assert valid["TopClass"] in {shown(valid["FrameNumber"] + 64 * turns) for turns in range(3)}
    assert stopped["TopClass"] == "None"
    assert all((tmp_path / "seen" / snapshot["picture"]).stat().st_size > 100 for snapshot in snapshots)
    assert "homeassistant/sensor/edgemask_door/class/config" in {message.topic for message in told.heard}
    assert not (tmp_path / "answers.sock").exists()


def shown(frame: int) -> int:
    """What the folder's six pictures show, over and over."""
    return frame % 6 % 4


@contextmanager
def started(settings: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([*COMMAND, "run", str(settings)]) as daemon:
        try:
            yield daemon
        finally:
            daemon.kill()


def of_validity(bus: can.BusABC, validity: str) -> dict[str, Any]:
    folder = Path(edgemask_runtime.__file__).parent / "sinks"
    database: Any = cantools.database.load_file(folder / "edgemask.dbc")
    message = database.get_message_by_name("EdgemaskClassification")
    while frame := bus.recv(PATIENCE_S):
        if frame.arbitration_id == CLASSES.id and message.decode(frame.data)["Validity"] == validity:
            decoded: dict[str, Any] = message.decode(frame.data)
            return decoded
    raise AssertionError("nothing came")
