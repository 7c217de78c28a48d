"""Moments as they are written down."""

from __future__ import annotations

import time

from edgemask_runtime import moments


def now_s() -> int:
    """The device's clock, which may be wrong."""
    return int(time.time())


def text(seconds: int | None = None) -> str:
    """A moment in UTC; now if none is given."""
    return moments.text(now_s() if seconds is None else seconds)
