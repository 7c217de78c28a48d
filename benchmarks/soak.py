"""The daemon under all that goes wrong in the field, at once and for long; every answer is checked to be of its frame.

    python -m benchmarks.soak [--minutes 30] [--json]

A camera gives more than the model can answer; another one on the network comes and goes. Meanwhile the bundle is
exchanged, sometimes by one that is broken, the model's process is killed, a sink's folder and a broker (where Mosquitto
is installed) vanish, clients ask over HTTP and shared memory, others stop midway, do not read, or send nonsense. The
model gives back the number that its frame shows. Exits with 1 when an answer was wrong or something hung.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Thread

import numpy as np

from benchmarks.soak_clients import (
    Record,
    SoakBroker,
    SoakCamera,
    ask_http,
    ask_ring,
    every,
    misbehave,
    read_camera,
    read_pattern,
)
from benchmarks.soak_model import echo_bundles

WORK = 30
MOSQUITTO = shutil.which("mosquitto", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
BYTES_PER_MB = 1 << 20
PATIENCE_S = 60.0
TOLD_MINUTES = 10
SETTINGS = """
schema = 1
[http]
listen = "127.0.0.1:0"
[[models]]
name = "echo"
bundle = "echo.edgemask"
socket = "ring.sock"
[[pipelines]]
name = "pattern"
model = "echo"
[pipelines.source]
kind = "pattern"
fps = 400
[[pipelines.sinks]]
kind = "socket"
path = "pattern.sock"
[[pipelines.sinks]]
kind = "jsonl"
path = "flaky/answers.jsonl"
max_mb = 2
{mqtt}
[[pipelines]]
name = "camera"
model = "echo"
stall_s = 1
[pipelines.source]
kind = "stream"
url = "http://127.0.0.1:{camera}/camera.mjpg"
[[pipelines.sinks]]
kind = "socket"
path = "camera.sock"
"""
MQTT = '[[pipelines.sinks]]\nkind = "mqtt"\nhost = "127.0.0.1"\nport = {port}\ntls = false\n'


@dataclass
class Found:
    """What a soak found: `faults` is what must not be."""

    seconds: float
    faults: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    daemon_mb: tuple[float, float] = (0.0, 0.0)
    slope_mb: float = 0.0


class Soak:
    """The daemon in a folder, and all that is done to it."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.record, self.stop, self.calm = Record(), Event(), Event()
        self.camera = SoakCamera(100)
        self.broker = SoakBroker(MOSQUITTO, folder) if MOSQUITTO else None
        self.pause_s = max(1.5, seconds / 60)
        self.said: list[str] = []
        self.memory: list[tuple[float, float]] = []
        self._source, self._turn = random.Random(0), 0

    def run(self) -> Found:
        """Begin, trouble it for as long as is asked, let it recover, end it, judge."""
        self.bundles = echo_bundles(self.folder, WORK)
        self.camera.start()
        if self.broker:
            self.broker.start()
        (self.folder / "flaky").mkdir()
        self._install(self.bundles[0])
        mqtt = MQTT.format(port=self.broker.port) if self.broker else ""
        (self.folder / "edgemaskd.toml").write_text(SETTINGS.format(camera=self.camera.port, mqtt=mqtt))
        command = [sys.executable, "-m", "edgemask_runtime.daemon", "run", "edgemaskd.toml"]
        # As the systemd units have it: threads that come and go would leave an arena each behind.
        environment = {**os.environ, "MALLOC_ARENA_MAX": "2"}
        pipes = {"stderr": subprocess.PIPE, "env": environment, "cwd": self.folder}
        with subprocess.Popen(command, text=True, **pipes) as self.daemon:
            try:
                return self._troubled()
            finally:
                self.daemon.kill()
                self.camera.stop()
                if self.broker:
                    self.broker.kill()

    def _troubled(self) -> Found:
        listener = Thread(target=self._listen, daemon=True)
        listener.start()
        self._until(lambda: self._url() is not None, "the daemon does not start")
        threads = self._begin(self._parties() + self._troubles())
        self.stop.wait(self.seconds)
        self.calm.set()
        found = Found(self.seconds)
        self._recover(found)
        self.stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        self._end(found)
        listener.join(PATIENCE_S)
        return self._judged(found)

    def _parties(self) -> list[Callable[[], None]]:
        url, sockets = str(self._url()), [self.folder / f"{name}.sock" for name in ("pattern", "camera", "ring")]
        return [
            partial(read_pattern, self.record, sockets[0], self.stop),
            partial(read_camera, self.record, sockets[1], self.stop),
            partial(ask_http, self.record, url, self.stop),
            partial(ask_ring, self.record, sockets[2], self.stop),
            partial(every, 1.0, self.stop, self._weigh),
        ]

    def _troubles(self) -> list[Callable[[], None]]:
        url, sockets = str(self._url()), [self.folder / f"{name}.sock" for name in ("pattern", "camera", "ring")]
        acts = {self._reload: 1.0, self._kill_worker: 2.3, self._lose_camera: 1.7, self._lose_folder: 1.3}
        if self.broker:
            acts[self._lose_broker] = 1.9
        loops = [partial(every, share * self.pause_s, self.calm, act) for act, share in acts.items()]
        return [*loops, partial(misbehave, self.record, url, sockets, self.calm)]

    def _begin(self, bodies: list[Callable[[], None]]) -> list[Thread]:
        threads = [Thread(target=body, daemon=True) for body in bodies]
        for thread in threads:
            thread.start()
        return threads

    def _reload(self) -> None:
        self._turn += 1
        if self._turn % 4 == 0:
            (self.folder / "new").write_bytes(self.bundles[0].read_bytes()[:-1000])
            (self.folder / "new").replace(self.folder / "echo.edgemask")
        else:
            self._install(self.bundles[self._turn % 2])
        self.daemon.send_signal(signal.SIGHUP)
        self.record.counts["reloads"] += 1

    def _install(self, bundle: Path) -> None:
        shutil.copy(bundle, self.folder / "new")
        (self.folder / "new").replace(self.folder / "echo.edgemask")

    def _kill_worker(self) -> None:
        # Why only with a sound file in place: the worker is started from what is installed.
        if self._turn % 4 != 0 and (workers := self._workers()):
            os.kill(self._source.choice(workers), signal.SIGKILL)
            self.record.counts["workers killed"] += 1

    def _lose_camera(self) -> None:
        self.camera.stop()
        self.calm.wait(self._source.uniform(0.1, 1.5))
        self.camera.start()
        self.record.counts["cameras lost"] += 1

    def _lose_folder(self) -> None:
        place, away = self.folder / "flaky", self.folder / "away"
        place.rename(away)
        self.calm.wait(self._source.uniform(0.1, 1.0))
        away.rename(place)
        self.record.counts["folders lost"] += 1

    def _lose_broker(self) -> None:
        assert self.broker
        self.broker.kill()
        self.calm.wait(self._source.uniform(0.1, 1.5))
        self.broker.start()
        self.record.counts["brokers lost"] += 1

    def _workers(self) -> list[int]:
        places = Path(f"/proc/{self.daemon.pid}/task").glob("*/children")
        return sorted({int(word) for place in places for word in place.read_text().split()})

    def _weigh(self) -> None:
        resident = int(Path(f"/proc/{self.daemon.pid}/statm").read_text().split()[1])
        self.memory.append((time.monotonic(), resident * os.sysconf("SC_PAGESIZE") / BYTES_PER_MB))

    def _listen(self) -> None:
        assert self.daemon.stderr
        self.said.extend(self.daemon.stderr)

    def _url(self) -> str | None:
        match = re.search(r"listening on (http://\S+)", "".join(self.said))
        return match[1] if match else None

    def _until(self, holds: Callable[[], object], complaint: str) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > end_s or self.daemon.poll() is not None:
                raise SystemExit(f"{complaint}\n{''.join(self.said)}")
            time.sleep(0.05)

    def _recover(self, found: Found) -> None:
        """After the trouble, everybody must get answers again."""
        self._install(self.bundles[0])
        self.daemon.send_signal(signal.SIGHUP)
        calm_s = time.monotonic()
        for who in ("pattern", "camera", "http", "ring"):
            while self.record.latest_s.get(who, 0.0) < calm_s and time.monotonic() < calm_s + PATIENCE_S:
                time.sleep(0.05)
            if self.record.latest_s.get(who, 0.0) < calm_s:
                found.faults.append(f"{who}: no answer within {PATIENCE_S:g} s after the trouble")

    def _end(self, found: Found) -> None:
        self.daemon.send_signal(signal.SIGTERM)
        try:
            code = self.daemon.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            found.faults.append("the daemon does not end")
            return
        if code != 0:
            found.faults.append(f"the daemon ended with {code}")

    def _judged(self, found: Found) -> Found:
        found.faults += self.record.wrong[:20]
        said = "".join(self.said)
        found.faults += [f"traceback: {last}" for last in re.findall(r"Traceback .*\n(?:[ <].*\n)*(.*)", said)]
        found.faults += [line.strip() for line in self.said if "left behind" in line]
        found.counts = dict(sorted(self.record.counts.items()))
        found.faults += [
            f"nothing of {who}" for who in ("pattern", "camera", "http", "ring") if not found.counts.get(who)
        ]
        settled = np.array(self.memory[len(self.memory) // 4 :])
        if len(settled) > 2:
            found.daemon_mb = (float(settled[0, 1]), float(settled[-1, 1]))
            found.slope_mb = float(np.polyfit(settled[:, 0], settled[:, 1], 1)[0]) * 60 * TOLD_MINUTES
        return found


def soak(seconds: float) -> Found:
    """Run it for so long."""
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        return Soak(Path(folder), seconds).run()


def main() -> int:
    """Run, print, and say by the exit code whether something must not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = soak(60 * options.minutes)
    if options.json:
        print(json.dumps(asdict(found), indent=2))
    else:
        print(
            f"{found.seconds / 60:.1f} minutes; {', '.join(f'{count} {what}' for what, count in found.counts.items())}"
        )
        first, last = found.daemon_mb
        print(f"daemon: {first:.1f} MB, at the end {last:.1f} MB; {found.slope_mb:+.2f} MB in {TOLD_MINUTES} minutes")
        print("\n".join(found.faults) or "no fault")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
