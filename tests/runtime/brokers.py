"""A real Mosquitto broker, and somebody who listens to it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from .answering import PATIENCE_S, eventually

MOSQUITTO = shutil.which("mosquitto", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="no broker here: sudo apt install mosquitto")


@dataclass
class Broker:
    folder: Path
    options: list[str]
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, on the port it had before; the first time on a free one."""
        self.port = self.port or free_port()
        configuration = self.folder / "mosquitto.conf"
        configuration.write_text("\n".join([f"listener {self.port} 127.0.0.1", "user root", *self.options, ""]))
        assert MOSQUITTO
        self.process = subprocess.Popen([MOSQUITTO, "-c", str(configuration)], stderr=subprocess.DEVNULL)
        eventually(self._answers)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None

    def send(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def _answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, "the broker does not start"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@contextmanager
def broker(folder: Path, *options: str) -> Iterator[Broker]:
    """A broker; anonymous unless the options say otherwise."""
    running = Broker(folder, list(options) or ["allow_anonymous true"])
    try:
        running.start()
        yield running
    finally:
        running.kill()


@dataclass
class Listener:
    """What came on each topic, in order, with `paho`'s messages as they are."""

    heard: list[paho.MQTTMessage] = field(default_factory=list)

    def on(self, topic: str) -> list[str]:
        return [message.payload.decode() for message in tuple(self.heard) if message.topic == topic]

    def last(self, topic: str) -> paho.MQTTMessage | None:
        return next((message for message in reversed(tuple(self.heard)) if message.topic == topic), None)


@contextmanager
def listening(port: int, topic: str = "#") -> Iterator[Listener]:
    """A subscriber of its own; it hears what is retained first."""
    told, ready = Listener(), []
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_message = lambda _client, _data, message: told.heard.append(message)
    client.on_subscribe = lambda *_: ready.append(True)

    def subscribe(*_: Any) -> None:
        client.subscribe(topic, qos=2)

    client.on_connect = subscribe
    client.connect("127.0.0.1", port, keepalive=int(PATIENCE_S))
    client.loop_start()
    try:
        eventually(lambda: ready)
        yield told
    finally:
        client.disconnect()
        client.loop_stop()
