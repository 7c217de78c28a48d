"""Moments as they are written down."""

from __future__ import annotations

import time

FORM = "%Y-%m-%dT%H:%M:%SZ"


def now_s() -> int:
    """The device's clock, which may be wrong."""
    return int(time.time())


def text(seconds: int | None = None) -> str:
    """A moment in UTC; now if none is given."""
    return time.strftime(FORM, time.gmtime(now_s() if seconds is None else seconds))
