"""What a worker's process may do: nothing more than its parent, nothing after it, and never a dump of its memory."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
OOM_SCORE = "500"


def confine(parent: int) -> bool:
    """Confine this process for good; False when the parent, of this id, is gone already.

    Signals for the whole group are the parent's to handle: it drains first.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        # Of the daemon and its workers the kernel should choose a worker: it is started again.
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    # Why besides the limit: a core that is piped to a program ignores it. It keeps debuggers from the key, too.
    _prctl(PR_SET_DUMPABLE, 0)
    return os.getppid() == parent


def give_back_memory() -> None:
    """Return what was freed and lies in the allocator to the system; only glibc can."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
