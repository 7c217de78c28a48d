"""One change at a time: a lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from edgemask_runtime.errors import UserError
from edgemask_runtime.install import clock
from edgemask_runtime.install.durable import make_folder
from edgemask_runtime.install.layout import Layout

MAX_BYTES = 4096


class Busy(UserError):
    """Another process is changing this installation."""


@contextmanager
def locked(layout: Layout, verb: str) -> Iterator[None]:
    """Hold the lock; Busy says who has it."""
    make_folder(layout.root)
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _busy(os.pread(descriptor, MAX_BYTES, 0)) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "verb": verb, "since": clock.text()}).encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _busy(told: bytes) -> Busy:
    holder: dict[str, object] = {}
    with suppress(ValueError):
        read = json.loads(told)
        holder = read if isinstance(read, dict) else {}
    who = f"`{holder.get('verb', '?')}` of process {holder.get('pid', '?')}, since {holder.get('since', '?')}"
    return Busy(f"another change is under way: {who}", "wait for it; `edgemask-device status` says what runs")
