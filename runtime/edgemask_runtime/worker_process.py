"""A worker's process as the supervisor has it: started, asked, watched, ended."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgemask_runtime.about import About, Outputs
from edgemask_runtime.errors import ModelDown, UserError
from edgemask_runtime.formats import Pixels
from edgemask_runtime.ring.connection import Connection, Moved
from edgemask_runtime.worker import ADOPT, DRAIN, FAILED, MAX_MESSAGE_BYTES, PING, SERVE, WorkerOptions

BOOT = """
import sys
sys.path[:] = sys.argv[1].split(":")
from edgemask_runtime.worker import main
sys.exit(main(sys.argv[2]))
"""
QUIET = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "NVIDIA_TF32_OVERRIDE": "0"}
"""One engine has its own threads; TF32 would make a GPU's answers coarser than the ones that were verified."""
PATIENCE = 12
"""Deadlines that a request may wait behind others."""
END_LIMIT_S = 10.0
SIZES = [1 << power for power in range(7)]
"""Rows that a connection has memory for."""
BYTES_PER_MB = 1 << 20


@dataclass(frozen=True)
class ModelOptions:
    """A model that the daemon runs, and how.

    `socket` is where local programs reach it, `group` who may beside the daemon's user. A worker that gives no sign of
    life for `deadline_s`, is not ready after `start_limit_s`, or uses more than `memory_mb` of its own is ended.
    `cache` is a folder where a GPU's engine keeps what it builds.
    """

    name: str
    bundle: Path
    engine: str | None = None
    threads: int = 1
    key: Path | None = None
    socket: Path | None = None
    group: str | None = None
    deadline_s: float = 5.0
    start_limit_s: float = 120.0
    memory_mb: int | None = None
    cache: Path | None = None


class WorkerProcess:
    """One worker; any thread may call `begin` and what it returns, only one the rest.

    The thread that makes it must live as long as it: the kernel ends a worker with the thread that started it.
    """

    def __init__(self, options: ModelOptions, listener: socket.socket | None, bundle: int | None = None) -> None:
        """Start it; UserError when that is not possible.

        `bundle` is an open file that takes the place of what now lies at the bundle's path; it is closed in the end.
        """
        self.options = options
        self.begun_s = self.ready_s = time.monotonic()
        self.bundle = _opened_bundle(options.bundle) if bundle is None else bundle
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setblocking(False)
        try:
            with theirs:
                self.process = _started(options, self.bundle, theirs, listener)
        except OSError as error:
            self.control.close()
            os.close(self.bundle)
            raise UserError(f"{options.name}: no process can be started: {error.strerror}") from error
        self._idle: dict[int, deque[Connection]] = {}
        self._max_rows, self._ended = 1, False
        self.about: About | None = None

    def fileno(self) -> int:
        """To poll for what it says."""
        return self.control.fileno()

    def heard(self) -> Iterator[tuple[bytes, UserError | None]]:
        """What it said meanwhile: a word; nothing, once, when it is gone; and an error with FAILED."""
        message = b"?"
        while message:
            try:
                message = self.control.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except ConnectionResetError:
                message = b""
            failed = message.startswith(FAILED)
            yield (FAILED, UserError(*json.loads(message[len(FAILED) :]))) if failed else (message, None)

    def greet(self) -> About:
        """Learn what it serves, once it is ready."""
        self.ready_s = time.monotonic()
        connection = self._connected(1, max(self.options.deadline_s, 1.0))
        self.about, self._max_rows = connection.about, connection.max_rows
        connection.close()
        self._idle = {size: deque() for size in (*SIZES, self._max_rows)}
        return self.about

    def begin(self, frames: Pixels) -> Callable[[], Outputs]:
        """Ask, and return what waits for all outputs.

        ModelDown, here and there: it went or does not answer; Moved: it goes in order, and did not run this.
        """
        idle = self._idle[size := min(1 << max(0, len(frames) - 1).bit_length(), self._max_rows)]
        try:
            connection = idle.pop()
        except IndexError:
            connection = self._connected(size, PATIENCE * self.options.deadline_s)
        try:
            number = connection.send(0, connection.fill(frames))
        except BaseException:
            self._let_go(connection, idle)
            raise
        return partial(self._received, number, connection, idle)

    def _received(self, number: int, connection: Connection, idle: deque[Connection]) -> Outputs:
        try:
            return connection.receive(number)
        finally:
            self._let_go(connection, idle)

    def _let_go(self, connection: Connection, idle: deque[Connection]) -> None:
        if not connection.closed:
            idle.append(connection)
        if self._ended:
            self._forget_connections()

    def tell(self, word: bytes) -> None:
        """Send a command; a worker that is gone is noticed by its silence."""
        with suppress(OSError):
            self.control.send(word)

    def serve(self) -> None:
        """Let it take local programs' connections."""
        self.tell(SERVE)

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.tell(PING)

    def drain(self) -> None:
        """Let it finish the request in hand, send its clients elsewhere and go; a worker that does not is ended."""
        self.tell(DRAIN)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(max(self.options.deadline_s, 1.0))
        self.end()

    def end(self) -> str:
        """End it at once and say how it went."""
        if not self._ended:
            self._ended = True
            self.process.kill()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(END_LIMIT_S)
            self.control.close()
            os.close(self.bundle)
            self._forget_connections()
        code = self.process.returncode
        if code is None:
            return "cannot be ended"
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def memory_mb(self) -> float:
        """What it has of its own, without files and what it shares with clients."""
        try:
            _, resident, shared, *_ = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        except (OSError, ValueError):
            return 0.0
        return (int(resident) - int(shared)) * resource.getpagesize() / BYTES_PER_MB

    def _forget_connections(self) -> None:
        for idle in self._idle.values():
            with suppress(IndexError):
                while True:
                    idle.pop().close()

    def _connected(self, rows: int, timeout_s: float) -> Connection:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                socket.send_fds(self.control, [ADOPT], [theirs.fileno()])
            return Connection(ours, rows=rows, timeout_s=timeout_s, about=self.about)
        except (ModelDown, OSError) as error:
            # Why not down: nothing was asked yet, so another worker may be.
            ours.close()
            raise Moved from error


def _opened_bundle(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such bundle", "`edgemask build RECIPE --target T` makes one") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from error


def _started(
    options: ModelOptions, bundle: int, control: socket.socket, listener: socket.socket | None
) -> subprocess.Popen[bytes]:
    listening = listener.fileno() if listener else None
    given = WorkerOptions(
        bundle=bundle,
        named=str(options.bundle),
        engine=options.engine,
        threads=options.threads,
        deadline_s=options.deadline_s,
        key=_text(options.key),
        cache=_text(options.cache),
        control=control.fileno(),
        listener=listening,
        parent=os.getpid(),
    )
    # Why not -m: it would look into the working directory first.
    flags = ["-I", *(["-B"] if sys.flags.dont_write_bytecode else [])]
    path = os.pathsep.join(place for place in sys.path if place)
    return subprocess.Popen(
        [sys.executable, *flags, "-c", BOOT, path, given.to_json()],
        stdin=subprocess.DEVNULL,
        # Why: the daemon's standard output may be where answers go.
        stdout=2,
        pass_fds=[bundle, control.fileno(), *([listening] if listening is not None else [])],
        env={**os.environ, **QUIET},
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
