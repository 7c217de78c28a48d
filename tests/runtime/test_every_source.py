"""Live sources in the real daemon: lost, told, opened again, and no password in anything that it says."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .running import COMMAND, Daemon, watched
from .streams import multipart_server
from .test_handover import PRODUCER, needs_gstreamer
from .tiny import MakeBundle

SETTINGS = """
schema = 1
[[models]]
name = "tiny"
bundle = "{bundle}"
[[pipelines]]
name = "door"
model = "tiny"
stall_s = 20
[pipelines.source]
{source}
[[pipelines.sinks]]
kind = "jsonl"
"""


class Answers:
    """What the daemon writes on its standard output, as it comes."""

    def __init__(self, daemon: Daemon) -> None:
        self._changed = threading.Condition()
        self.lines: list[dict[str, Any]] = []
        threading.Thread(target=self._collect, args=(daemon.process.stdout,), daemon=True).start()

    def _collect(self, output: Any) -> None:
        for line in output:
            with self._changed:
                self.lines.append(json.loads(line))
                self._changed.notify_all()

    def count(self) -> int:
        return sum("frame" in line for line in self.lines)

    def wait_for_more(self, than: int) -> int:
        with self._changed:
            assert self._changed.wait_for(lambda: self.count() > than, 120), self.lines[-3:]
        return self.count()


@contextmanager
def running(bundle: Path, source: str, folder: Path) -> Iterator[tuple[Daemon, Answers]]:
    path = folder / "settings.toml"
    path.write_text(SETTINGS.format(bundle=bundle, source=source))
    with watched([*COMMAND, "run", str(path)]) as daemon:
        answers = Answers(daemon)
        yield daemon, answers
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(60) == 0, "".join(daemon.errors)


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Path:
    return make_bundle(max_age_ms=60_000)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def test_a_stream_that_is_lost_is_opened_again_and_its_password_never_told(bundle: Path, tmp_path: Path) -> None:
    port, pause = free_port(), threading.Event()
    source = f'kind = "stream"\nurl = "http://me:secret@127.0.0.1:{port}/cam?pw=hidden"'
    over = threading.Event()
    with running(bundle, source, tmp_path) as (daemon, answers):
        daemon.said("the source is lost|it is opened again")
        with multipart_server(lambda _: not over.is_set() and not pause.wait(0.03), port=port):
            count = answers.wait_for_more(5)
            over.set()
        over.clear()
        with multipart_server(lambda _: not over.is_set() and not pause.wait(0.03), port=port):
            answers.wait_for_more(count + 5)
            daemon.said("gives frames again")
            over.set()
    said = "".join(daemon.errors) + json.dumps(answers.lines)
    assert "secret" not in said
    assert "hidden" not in said
    assert any("invalid" in line for line in answers.lines)


def test_a_producer_that_dies_is_connected_again(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "door.sock"
    command = [sys.executable, "-c", PRODUCER, str(path), str(Path(__file__).parents[2] / "runtime")]
    with running(bundle, f'kind = "socket"\npath = "{path}"', tmp_path) as (daemon, answers):
        count = 0
        for _ in range(2):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as producer:
                count = answers.wait_for_more(count + 5)
                producer.kill()
        daemon.said("whoever offered frames is gone")


def test_a_gstreamer_helper_that_dies_is_started_again(bundle: Path, tmp_path: Path) -> None:
    needs_gstreamer()
    source = 'kind = "gstreamer"\npipeline = "videotestsrc is-live=true"\ntimeout_s = 60'
    with running(bundle, source, tmp_path) as (daemon, answers):
        count = answers.wait_for_more(3)
        helper = child_of(daemon.process.pid)
        subprocess.run(["kill", "-9", str(helper)], check=True)
        answers.wait_for_more(count + 3)
        daemon.said("gives frames again")
    assert not Path(f"/proc/{helper}").exists()


def child_of(parent: int) -> int:
    """The helper of that daemon."""
    children = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    (found,) = [pid for pid in children if is_helper(pid, parent)]
    return found


def is_helper(pid: int, parent: int) -> bool:
    try:
        stated = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        return int(stated) == parent and b"producer.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
