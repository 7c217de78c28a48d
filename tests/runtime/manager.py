"""A service manager for tests: it runs one daemon, hears READY=1, starts it again when it fails, and outlives
installers, which reach it over a Unix socket as they reach systemd."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from edgemask_runtime.errors import UserError
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.install.services import ServiceState

MOST_RESTARTS = 2


class Manager:
    """Type=notify and Restart=on-failure, as systemd has them."""

    def __init__(self, layout: Layout, folder: Path) -> None:
        self.layout, self.log = layout, folder / "log"
        self.reloads, self.users = 0, []
        self._process: subprocess.Popen[bytes] | None = None
        self._state = ServiceState("inactive", "dead")
        self._runs, self._restarts = itertools.count(1), 0
        self._changed = threading.Condition()
        self._orders: SimpleQueue[str] = SimpleQueue()
        self._notified = _bound(folder / "notify", socket.SOCK_DGRAM)
        self._asked = _bound(folder / "manager", socket.SOCK_STREAM)
        self._asked.listen()
        self._threads = [threading.Thread(target=work) for work in (self._work, self._hear, self._serve)]
        for thread in self._threads:
            thread.start()

    def make_users(self, file: Path) -> None:
        self.users.append(file.read_text())

    def reload(self) -> None:
        self.reloads += 1

    def restart(self) -> None:
        self._orders.put("restart")

    def stop(self) -> None:
        self._orders.put("stop")
        with self._changed:
            assert self._changed.wait_for(lambda: self._process is None and self._orders.empty(), 60)

    def state(self) -> ServiceState:
        with self._changed:
            return self._state

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def becomes(self, active: str, status: str | None = None) -> ServiceState:
        """Wait until it is so."""
        with self._changed:
            reached = self._changed.wait_for(
                lambda: self._state.active == active and status in (None, self._state.status), 60
            )
            assert reached, (self._state, status, self.said())
            return self._state

    def power_off(self) -> None:
        """The daemon is gone at once."""
        self.stop()

    def close(self) -> None:
        self.stop()
        for end in ("close", "notify", "manager"):
            self._end(end)
        for thread in self._threads:
            thread.join()
        self._notified.close()
        self._asked.close()

    def _end(self, what: str) -> None:
        if what == "close":
            self._orders.put("close")
        elif what == "notify":
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.sendto(b"END", self._notified.getsockname())
        else:
            with socket.socket(socket.AF_UNIX) as end:
                end.connect(self._asked.getsockname())
                end.sendall(b'"close"\n')

    def _work(self) -> None:
        while (order := self._orders.get()) != "close":
            if order == "restart":
                self._kill()
                self._restarts = 0
                self.log.unlink(missing_ok=True)
                self._start()
            elif order == "stop":
                self._kill()
                self._set(ServiceState("inactive", "dead"))
            elif order.startswith("ended") and self._process and order == f"ended {self._process.pid}":
                self._ended()
            with self._changed:
                self._changed.notify_all()

    def _start(self) -> None:
        run = f"run {next(self._runs)}"
        command = [str(self.layout.current / "venv/bin/edgemaskd"), "run", str(self.layout.settings)]
        environment = {**os.environ, "NOTIFY_SOCKET": self._notified.getsockname()}
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
                )
        except OSError as error:
            self._process = None
            return self._set(ServiceState("failed", "failed", run=run, result=f"exec {error}"))
        self._set(ServiceState("activating", "start", restarts=self._restarts, run=run))
        process = self._process
        threading.Thread(target=lambda: (process.wait(), self._orders.put(f"ended {process.pid}"))).start()
        return None

    def _ended(self) -> None:
        code = self._process.returncode if self._process else 0
        self._process, run = None, self.state().run
        if not code:
            return self._set(ServiceState("inactive", "dead", run=run, restarts=self._restarts))
        if self._restarts == MOST_RESTARTS:
            return self._set(ServiceState("failed", "failed", run=run, restarts=self._restarts, result=f"code {code}"))
        self._restarts += 1
        return self._start()

    def _kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _set(self, state: ServiceState) -> None:
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def _hear(self) -> None:
        while (message := self._notified.recv(4096).decode()) != "END":
            told = dict(line.partition("=")[::2] for line in message.splitlines())
            with self._changed:
                if told.get("READY") == "1":
                    status = told.get("STATUS", "")
                    self._state = dataclasses.replace(self._state, active="active", sub="running", status=status)
                    self._changed.notify_all()

    def _serve(self) -> None:
        serving = True
        while serving:
            connection, _ = self._asked.accept()
            # Why suppressed: its installer may be killed at any moment, and closing flushes what nobody reads any more.
            with suppress(OSError), connection, connection.makefile("rw") as file:
                serving = self._answered(file)

    def _answered(self, file: IO[str]) -> bool:
        """Answer one question, if one was asked; False once there is to be no other."""
        name, *arguments = _words(file.readline())
        if name == "close":
            return False
        if name:
            answer = getattr(self, name)(*map(Path, arguments))
            file.write(json.dumps(dataclasses.asdict(answer) if name == "state" else answer) + "\n")
            file.flush()
        return True


def _words(line: str) -> list[str]:
    words = json.loads(line or '""')
    return words if isinstance(words, list) else [words]


def _bound(path: Path, kind: int) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, kind)
    made.bind(str(path))
    return made


class Far:
    """The manager as another process has it."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self._ask(name, *map(str, arguments))

    def state(self) -> ServiceState:
        if Path(f"{self._address}.hangs").exists():
            raise UserError("`systemctl show` does not end", "wait")
        return ServiceState(**self._ask("state"))

    def _ask(self, *words: str) -> Any:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(self._address)
            with channel.makefile("rw") as file:
                file.write(json.dumps(words) + "\n")
                file.flush()
                return json.loads(file.readline())


@contextmanager
def managed(layout: Layout, folder: Path) -> Iterator[Manager]:
    """A manager for this installation; nothing of it is left afterwards."""
    manager = Manager(layout, folder)
    try:
        yield manager
    finally:
        manager.close()
