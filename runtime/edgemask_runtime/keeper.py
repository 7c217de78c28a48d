"""Keeps one model's worker alive: starts it, watches it, starts it again, exchanges it; a thread and nothing shared."""

from __future__ import annotations

import dataclasses
import logging
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from edgemask_runtime.about import About
from edgemask_runtime.errors import ModelDown, UserError
from edgemask_runtime.remote import Remote
from edgemask_runtime.ring.connection import Moved
from edgemask_runtime.worker import ALARM, PONG, READY
from edgemask_runtime.worker_process import ModelOptions, WorkerProcess

BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_S = 60.0
TICK_S, ASK_EVERY_S = 0.25, 1.0

log = logging.getLogger("edgemaskd")


class Keeper(Thread):
    """Looks after a model's worker and, while one is starting, its successor; other threads say what to do.

    A successor takes over when it is ready and is of the same frames and outputs; else the old one was never stopped.
    """

    def __init__(self, options: ModelOptions, listener: socket.socket | None) -> None:
        super().__init__(name=f"keeper {options.name}", daemon=True)
        self.remote = Remote(options.name)
        self._options, self._listener = options, listener
        self._worker: WorkerProcess | None = None
        self._successor: WorkerProcess | None = None
        self._promised: Future[About] | None = None
        self._commands: deque[Callable[[], None]] = deque()
        self._woken = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wanted, self._stopping = False, False
        self._failures, self._due_s = 0, 0.0
        self._asked_s: float | None = None
        # Why not with every turn: the answer begins the next turn, and both processes would do nothing else.
        self._ask_due_s = 0.0
        self._accepted: int | None = None

    def load(self) -> Future[About]:
        """Start the model; a first start that fails is not tried again."""
        return self._promise(lambda promised: self._begin(self._options, promised))

    def reload(self, bundle: Path) -> Future[About]:
        """Exchange the bundle; an error leaves the old one as it is."""
        return self._promise(lambda promised: self._begin(dataclasses.replace(self._options, bundle=bundle), promised))

    def unload(self) -> Future[About]:
        """Let the request in hand be answered, then end the worker."""
        return self._promise(self._unload)

    def stop(self) -> None:
        """End the worker, and this thread."""

        def stop() -> None:
            self._stopping = True

        self._order(stop)
        self.join()
        os.close(self._woken)
        if self._accepted is not None:
            os.close(self._accepted)

    def run(self) -> None:
        """Keep it, until told to stop."""
        while not self._stopping:
            self._turn()
        self._end_successor(UserError(f"{self._options.name}: the daemon stops"))
        self._retire("the daemon stops")

    def _turn(self) -> None:
        self._wait()
        try:
            while self._commands:
                self._commands.popleft()()
            self._watch_worker()
            self._watch_successor()
        except OSError:
            # Out of descriptors or memory, for now: whoever is left half-started is ended by its time limit.
            log.exception("%s: the system refuses", self._options.name)

    def _promise(self, order: Callable[[Future[About]], None]) -> Future[About]:
        promised: Future[About] = Future()
        self._order(lambda: order(promised))
        return promised

    def _order(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        os.eventfd_write(self._woken, 1)

    def _wait(self) -> None:
        """Wait until there is something to hear, or a moment."""
        poll = select.poll()
        for descriptor in (self._woken, self._worker, self._successor):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        if any(descriptor == self._woken for descriptor, _ in poll.poll(1000 * TICK_S)):
            os.eventfd_read(self._woken)

    def _begin(self, options: ModelOptions, promised: Future[About] | None) -> None:
        if self._promised:
            if promised:
                promised.set_exception(UserError(f"{options.name}: it is being started already", "wait for that"))
            return
        if self._successor:
            self._successor.end()
        self._successor, self._promised = None, promised
        # Why the open file: a bundle that was refused may lie at the path of the accepted one by now.
        again = os.dup(self._accepted) if promised is None and self._accepted is not None else None
        try:
            self._successor = WorkerProcess(options, self._listener, again)
        except UserError as error:
            self._failed(error)

    def _unload(self, promised: Future[About]) -> None:
        self._wanted = False
        self._end_successor(UserError(f"{self._options.name}: it was unloaded meanwhile"))
        self._retire("it was unloaded")
        promised.set_result(self.remote.about)

    def _watch_worker(self) -> None:
        """Hear the worker, ask it for a sign of life, and end it when there is none."""
        worker = self._worker
        if worker is None:
            return
        for message, _ in worker.heard():
            if message == PONG:
                self._asked_s = None
            elif message.startswith(ALARM):
                self.remote.alarm = message[len(ALARM) :].decode(errors="replace")
            elif message == b"":
                self._lost(worker, "")
                return
        if trouble := self._trouble(worker):
            self._lost(worker, trouble)
        elif self._asked_s is None and time.monotonic() >= self._ask_due_s:
            worker.ping()
            self._asked_s = time.monotonic()
            self._ask_due_s = self._asked_s + ASK_EVERY_S

    def _trouble(self, worker: WorkerProcess) -> str:
        deadline_s, limit_mb = worker.options.deadline_s, worker.options.memory_mb
        if self._asked_s is not None and time.monotonic() - self._asked_s > deadline_s:
            return f"no sign of life for {deadline_s:g} s"
        if limit_mb is not None and (used_mb := worker.memory_mb()) > limit_mb:
            return f"{used_mb:.0f} MB of memory, of {limit_mb}"
        return ""

    def _lost(self, worker: WorkerProcess, trouble: str) -> None:
        """End what is left of the worker and let another one be started, later each time."""
        self.remote.down("its process is being started again")
        ended = worker.end()
        self._worker, self._asked_s = None, None
        self._failures = 0 if time.monotonic() - worker.ready_s > STEADY_S else self._failures
        self._postpone(trouble or ended)

    def _postpone(self, reason: str) -> None:
        pause_s = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures, self._due_s = self._failures + 1, time.monotonic() + pause_s
        self.remote.restarts += 1
        self.remote.down(f"{reason}; its process is being started again")
        log.warning("%s: %s; starting it again in %g s", self._options.name, reason, pause_s)

    def _watch_successor(self) -> None:
        """Hear the one that is starting, or start one where none runs."""
        successor = self._successor
        if successor is None:
            if self._wanted and self._worker is None and time.monotonic() >= self._due_s:
                self._begin(self._options, None)
            return
        for message, error in successor.heard():
            if message == READY:
                self._promote(successor)
            else:
                name = successor.options.bundle
                self._end_successor(error or UserError(f"{name}: its process {successor.end()} before it was ready"))
            return
        if time.monotonic() - successor.begun_s > successor.options.start_limit_s:
            limit_s = successor.options.start_limit_s
            self._end_successor(UserError(f"{successor.options.bundle}: not ready within {limit_s:g} s"))

    def _promote(self, successor: WorkerProcess) -> None:
        """Let frames go to the successor, then let the old one go."""
        try:
            about = successor.greet()
            self.remote.check_exchange(about)
        except (UserError, Moved) as error:
            self._end_successor(error if isinstance(error, UserError) else ModelDown("its process went"))
            return
        before, self._accepted = self._accepted, os.dup(successor.bundle)
        if before is not None:
            os.close(before)
        old, self._worker, self._successor = self._worker, successor, None
        self._options, self._wanted, self._asked_s = successor.options, True, None
        self.remote.switch(successor, about)
        successor.serve()
        if old:
            old.drain()
        if promised := self._promise_kept():
            promised.set_result(about)

    def _end_successor(self, error: UserError) -> None:
        if self._successor is None:
            return
        self._successor.end()
        self._successor = None
        self._failed(error)

    def _failed(self, error: UserError) -> None:
        if promised := self._promise_kept():
            promised.set_exception(error)
        elif self._wanted:
            self._postpone(error.message)

    def _promise_kept(self) -> Future[About] | None:
        promised, self._promised = self._promised, None
        return promised

    def _retire(self, reason: str) -> None:
        self.remote.down(reason)
        if self._worker:
            self._worker.drain()
            self._worker = None
