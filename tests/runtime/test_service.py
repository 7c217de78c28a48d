"""The daemon as a whole on settings: several pipelines, reloads, a model that is killed, an alarm."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx

from edgemask_runtime.bundle import Bundle, payload_digest

from .parts import PATIENCE_S, until
from .running import COMMAND, Daemon, watched
from .tiny import MakeBundle

SETTINGS = """
schema = 1
[http]
listen = "127.0.0.1:0"
[[models]]
name = "faces"
bundle = "tiny.edgemask"
"""
PIPELINE = """
[[pipelines]]
name = "{name}"
model = "faces"
[pipelines.source]
kind = "pattern"
fps = {fps}
[[pipelines.sinks]]
kind = "jsonl"
path = "{name}.jsonl"
"""


class Device:
    """A folder with settings and a bundle, and the daemon that runs them."""

    def __init__(self, folder: Path, bundle: Path, *pipelines: str) -> None:
        self.folder = folder
        shutil.copy(bundle, folder / "tiny.edgemask")
        (folder / "edgemaskd.toml").write_text(SETTINGS + "".join(pipelines))

    def running(self) -> AbstractContextManager[Daemon]:
        return watched([*COMMAND, "run", str(self.folder / "edgemaskd.toml")], stdout=subprocess.DEVNULL)

    def lines(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / f"{name}.jsonl"
        whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
        return [json.loads(line) for line in whole.splitlines()]

    def answers(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines(name) if "frame" in line]

    def put(self, bundle: Path) -> str:
        """Install another bundle as one does: beside, then in its place. Its digest."""
        shutil.copy(bundle, self.folder / "new")
        (self.folder / "new").replace(self.folder / "tiny.edgemask")
        return payload_digest(Bundle.open(bundle).manifest)


def worker_of(daemon: Daemon) -> int:
    children = Path(f"/proc/{daemon.process.pid}/task").glob("*/children")
    (child,) = {int(word) for path in children for word in path.read_text().split()}
    return child


def test_two_pipelines_share_a_model_and_end_alone(make_bundle: MakeBundle, tmp_path: Path) -> None:
    short = PIPELINE.format(name="short", fps=50).replace("fps =", "frames = 5\nfps =")
    device = Device(tmp_path, make_bundle(max_age_ms=60_000), short, PIPELINE.format(name="long", fps=50))
    with device.running() as daemon:
        until(lambda: len(device.answers("long")) > 20)
        until(lambda: [answer["frame"] for answer in device.answers("short")][-1:] == [4])
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(PATIENCE_S) == 0
    assert device.lines("long")[-1]["invalid"] == "stopping"
    assert {answer["pipeline"] for answer in device.answers("short")} == {"short"}


def test_a_bundle_is_exchanged_without_losing_a_frame(make_bundle: MakeBundle, tmp_path: Path) -> None:
    first, second = (
        make_bundle(max_age_ms=60_000, tools={"edgemask": "1"}),
        make_bundle(max_age_ms=60_000, tools={"edgemask": "2"}),
    )
    device = Device(tmp_path, first, PIPELINE.format(name="front", fps=0))
    with device.running() as daemon:
        until(lambda: len(device.answers("front")) > 20)
        digest = device.put(second)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.said(rf"faces: .*, {digest[:12]}, runs now")
        until(lambda: device.answers("front")[-1]["digest"] == digest)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(PATIENCE_S) == 0
    answers = device.answers("front")
    assert [answer["frame"] for answer in answers] == list(range(len(answers)))
    digests = [answer["digest"] for answer in answers]
    assert len(set(digests)) == 2
    assert digests == sorted(digests, key=lambda value: value == digest)


def test_a_bundle_that_does_not_fit_leaves_the_old_one(make_bundle: MakeBundle, tmp_path: Path) -> None:
    device = Device(tmp_path, make_bundle(max_age_ms=60_000), PIPELINE.format(name="front", fps=100))
    with device.running() as daemon:
        until(lambda: device.answers("front"))
        for bundle, said in (
            (
                make_bundle(max_age_ms=60_000, labels=("a", "b", "c", "d")),
                "labels is not the one that sinks were opened with",
            ),
            (make_bundle(max_age_ms=60_000, noisy=True, entropy=None), "manifest does not state"),
        ):
            device.put(bundle)
            daemon.process.send_signal(signal.SIGHUP)
            daemon.said(rf"faces: .*{said}.*the bundle that ran before runs on")
        seen = len(device.answers("front"))
        until(lambda: len(device.answers("front")) > seen + 5)
        assert len({answer["digest"] for answer in device.answers("front")}) == 1


def test_a_model_that_is_killed_is_started_again_alone(make_bundle: MakeBundle, tmp_path: Path) -> None:
    device = Device(tmp_path, make_bundle(max_age_ms=60_000), PIPELINE.format(name="front", fps=100))
    with device.running() as daemon:
        until(lambda: device.answers("front"))
        os.kill(worker_of(daemon), signal.SIGKILL)
        daemon.said("front: the model answers again")
        seen = len(device.answers("front"))
        until(lambda: len(device.answers("front")) > seen)
        assert httpx.get(f"{daemon.url}/v2/health/ready").status_code == 200
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(PATIENCE_S) == 0
        counts = daemon.said(
            r"front: (\d+) frames captured, (\d+) answered, (\d+) dropped, (\d+) expired, (\d+) failed"
        )
    captured, *rest = map(int, counts.groups())
    assert captured == sum(rest)
