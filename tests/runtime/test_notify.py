"""What systemd hears of the daemon, and what journald reads."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemask_runtime.notify import JournalFormatter, notify, watchdog_s

from .parts import PATIENCE_S
from .running import COMMAND
from .tiny import MakeBundle


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._changed = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while data := self._socket.recv(4096):
            with self._changed:
                self.heard.append(data.decode())
                self._changed.notify_all()

    def hears(self, word: str, times: int = 1) -> None:
        with self._changed:
            said = self._changed.wait_for(lambda: sum(word in text for text in self.heard) >= times, PATIENCE_S)
            assert said, self.heard

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self.address)
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    listening = Manager(tmp_path / "n")
    yield listening
    listening.close()


def test_a_service_manager_hears_of_the_daemons_life(make_bundle: MakeBundle, faces: Path, manager: Manager) -> None:
    environment = {**os.environ, "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000"}
    arguments = ["run", str(make_bundle()), "--source", str(faces), "--loop", "--listen", "none"]
    with subprocess.Popen(
        [*COMMAND, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        manager.hears("READY=1")
        manager.hears("WATCHDOG=1", 3)
        process.send_signal(signal.SIGTERM)
        manager.hears("STOPPING=1")
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert manager.heard[0].startswith("READY=1\nSTATUS=tiny ")


def test_nobody_listening_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "absent"))
    assert not notify("READY=1")


def test_an_abstract_socket_is_spoken_to(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"edgemask-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        assert notify("READY=1", "STATUS=x")
        assert listening.recv(100) == b"READY=1\nSTATUS=x"


@pytest.mark.parametrize(
    ("limit", "pid", "expected"),
    [("30000000", "", 30.0), ("500000", "mine", 0.5), ("500000", "1", None), ("0", "", None), ("x", "", None)],
)
def test_the_watchdog_is_kept_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, limit: str, pid: str, expected: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", limit)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "mine" else pid)
    assert watchdog_s() == expected


def test_every_line_of_a_record_has_its_priority() -> None:
    formatter = JournalFormatter("%(message)s")
    records = [logging.LogRecord("", level, "", 0, "a\nb", None, None) for level in (10, 20, 30, 40, 50)]
    assert [formatter.format(record)[:3] for record in records] == ["<7>", "<6>", "<4>", "<3>", "<2>"]
    assert formatter.format(records[0]) == "<7>a\n<7>b"


def test_the_journal_is_known_by_its_socket(make_bundle: MakeBundle, faces: Path) -> None:
    ours, its = socket.socketpair()
    status = os.fstat(its.fileno())
    for stream, pattern in ((f"{status.st_dev}:{status.st_ino}", r"<\d>"), ("1:2", "edgemaskd: ")):
        arguments = ["run", str(make_bundle()), "--source", str(faces), "--listen", "none", "--max-frames", "1"]
        environment = {**os.environ, "JOURNAL_STREAM": stream}
        subprocess.run(
            [*COMMAND, *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=its,
            check=True,
            timeout=PATIENCE_S,
        )
        assert re.match(pattern, ours.recv(10_000).decode())
    environment["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
    subprocess.run([*COMMAND, "run", "absent"], env=environment, stderr=its, check=False, timeout=PATIENCE_S)
    assert ours.recv(10_000).startswith(b"<3>error: absent")
    ours.close()
    its.close()
