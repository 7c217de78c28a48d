"""What systemd is told: ready, alive, reloading, stopping (sd_notify's protocol), and how it is logged to."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time

from edgemask_runtime.errors import is_journal

PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
NS_PER_US, US_PER_S = 1000, 1_000_000


def notify(*assignments: str) -> bool:
    """Send assignments such as READY=1 to the service manager; False when there is none, or it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(1.0)
            channel.sendto("\n".join(assignments).encode(), name)
    except OSError:
        return False
    return True


def reloading() -> bool:
    """Say that a reload begins; READY=1 ends it."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // NS_PER_US}")


def watchdog_s() -> float | None:
    """How often the service manager wants a sign of life, None where it does not; it is to get twice as many."""
    limit, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not limit.isdigit() or int(limit) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(limit) / US_PER_S


class JournalFormatter(logging.Formatter):
    """Puts the priority that journald reads in front of every line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines, each with its priority."""
        priority = next((value for level, value in PRIORITIES.items() if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def start_logging() -> None:
    """Log to standard error: to journald with priorities, to people with the daemon's name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JournalFormatter("%(message)s") if is_journal() else logging.Formatter("edgemaskd: %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
