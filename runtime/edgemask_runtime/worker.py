"""The process of one model: it alone has the engine, the key and the entropy, and serves the ring with them."""

from __future__ import annotations

import gc
import json
import math
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from edgemask_runtime.confinement import confine, give_back_memory
from edgemask_runtime.entropy import NoEntropy
from edgemask_runtime.errors import EXIT_OK, EXIT_USER, UserError
from edgemask_runtime.notify import start_logging
from edgemask_runtime.predictor import Served
from edgemask_runtime.ring.server import RingServer

READY, PONG, FAILED, ALARM = b"ready", b"pong", b"failed", b"alarm"
SERVE, DRAIN, PING, ADOPT = b"serve", b"drain", b"ping", b"adopt"
MAX_MESSAGE_BYTES, MAX_TEXT_CHARS = 1 << 16, 4000
HEAR_EVERY_S = 0.05
DEADLINES = 4
"""Inferences that a deadline should have room for: several may wait."""


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker is started with; `bundle`, `control` and `listener` are descriptors that it inherits."""

    bundle: int
    named: str
    engine: str | None
    threads: int
    deadline_s: float
    key: str | None
    cache: str | None
    control: int
    listener: int | None
    parent: int

    def to_json(self) -> str:
        """The argument of the process."""
        return json.dumps(asdict(self))


class Worker:
    """The ring's only thread. Commands come over the control socket, whose end is the worker's end."""

    def __init__(self, served: Served, control: socket.socket, listener: socket.socket | None) -> None:
        self._ring = RingServer(served, alarmed=self._alarmed)
        self._control, self._listener = control, listener
        self._running, self._heard_s = True, time.monotonic()
        control.setblocking(False)
        self._ring.watch(control.fileno(), self._hear)

    def run(self) -> None:
        """Serve until told to drain; no request is under way when this returns."""
        self._control.send(READY)
        while self._running:
            self._ring.turn()
            # Why: while many clients ask, their turns come before the next command's.
            if time.monotonic() - self._heard_s > HEAR_EVERY_S:
                self._hear()
        self._ring.close()

    def _alarmed(self, error: NoEntropy) -> None:
        """Tell the supervisor, whoever asked: local programs' answers do not pass it."""
        with suppress(OSError):
            self._control.send(ALARM + error.message.encode()[:MAX_TEXT_CHARS])

    def _hear(self) -> None:
        """Do what the supervisor says, if it says anything."""
        self._heard_s = time.monotonic()
        try:
            word, descriptors, _, _ = socket.recv_fds(self._control, MAX_MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        adopted = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if word == ADOPT and adopted:
            self._ring.adopt(adopted[0])
        elif word == SERVE and self._listener:
            self._ring.listen(self._listener)
        elif word == PING:
            self._control.send(PONG)
        elif word in (DRAIN, b""):
            self._running = False


def main(argument: str) -> int:
    """Run a worker; what goes wrong before it is ready is told to the supervisor."""
    options = WorkerOptions(**json.loads(argument))
    start_logging()
    if not confine(options.parent):
        return EXIT_OK
    control = socket.socket(fileno=options.control)
    try:
        served = _opened(options)
    except UserError as error:
        control.send(FAILED + _told(error, options))
        return EXIT_USER
    listener = socket.socket(fileno=options.listener) if options.listener is not None else None
    Worker(served, control, listener).run()
    return EXIT_OK


def _opened(options: WorkerOptions) -> Served:
    # Why here: the supervisor takes the words of this file, and needs no engine.
    from edgemask_runtime.cascade import open_bundle
    from edgemask_runtime.sealed import open_stored

    key = Path(options.key) if options.key is not None else None
    cache = Path(options.cache) if options.cache is not None else None
    # Why by descriptor: what lies at the path may be another file since this one was accepted.
    # Why not whole: it takes as long again as at the daemon's start, and each file that is read here is checked then.
    bundle = open_stored(_place(options), Path(options.named), whole=False)
    served = open_bundle(bundle, engine=options.engine, threads=options.threads, key=key, cache=cache)
    # Why: the archive is all in memory where it was encrypted, and was read.
    del bundle
    _check_deadline(served.inference_s, options)
    gc.collect()
    gc.freeze()
    give_back_memory()
    return served


def _check_deadline(inference_s: float, options: WorkerOptions) -> None:
    """UserError where a worker would be ended for being at work."""
    if inference_s < options.deadline_s:
        return
    message = f"{options.named}: one inference takes {inference_s:.2g} s on this machine"
    hint = f"deadline_s = {math.ceil(DEADLINES * inference_s)} in the model's settings"
    raise UserError(f"{message}, and deadline_s is {options.deadline_s:g}", hint)


def _place(options: WorkerOptions) -> str:
    return f"/proc/self/fd/{options.bundle}"


def _told(error: UserError, options: WorkerOptions) -> bytes:
    texts = [text.replace(_place(options), options.named) if text else None for text in (error.message, error.hint)]
    return json.dumps([text[:MAX_TEXT_CHARS] if text else None for text in texts]).encode()
