"""One change at a time: a lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from edgemask_runtime.errors import UserError
from edgemask_runtime.install import clock
from edgemask_runtime.install.durable import make_folder
from edgemask_runtime.install.layout import Layout

MAX_BYTES = 4096
POLL_S, OBSERVED_LIMIT_S = 0.02, 10.0


class Busy(UserError):
    """Another process is changing this installation."""


@contextmanager
def locked(layout: Layout, verb: str) -> Iterator[None]:
    """Hold the lock; Busy says who has it."""
    make_folder(layout.root)
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _taken(descriptor):
            raise _busy(_holder(descriptor))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "verb": verb, "since": clock.text()}).encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


@contextmanager
def observed(layout: Layout) -> Iterator[dict[str, Any] | None]:
    """Let nobody begin a change meanwhile; where one is under way, its verb, process and time."""
    try:
        descriptor = os.open(layout.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        # Nothing was ever installed here, or it is not for this user to see.
        yield None
        return
    try:
        yield None if _locks(descriptor, fcntl.LOCK_SH) else _holder(descriptor)
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    """Whether the lock is ours now; who only looks does not keep it from us."""
    deadline_s = time.monotonic() + OBSERVED_LIMIT_S
    while not _locks(descriptor, fcntl.LOCK_EX):
        if not _locks(descriptor, fcntl.LOCK_SH) or time.monotonic() > deadline_s:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(POLL_S)
    return True


def _locks(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> dict[str, Any]:
    read: Any = None
    with suppress(ValueError):
        read = json.loads(os.pread(descriptor, MAX_BYTES, 0))
    return dict.fromkeys(("verb", "pid", "since"), "?") | (read if isinstance(read, dict) else {})


def _busy(holder: dict[str, Any]) -> Busy:
    who = f"`{holder['verb']}` of process {holder['pid']}, since {holder['since']}"
    return Busy(f"another change is under way: {who}", "wait for it; `edgemask-device status` says when it is over")
