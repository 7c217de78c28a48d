"""Moments as they are written down everywhere: UTC, to the second, 2027-01-31T00:00:00Z."""

from __future__ import annotations

import calendar
import time

FORM = "%Y-%m-%dT%H:%M:%SZ"


def text(seconds_s: float) -> str:
    """The moment so many seconds after 1970."""
    return time.strftime(FORM, time.gmtime(seconds_s))


def seconds(moment: str) -> int:
    """Seconds since 1970; ValueError where it is no moment, or one that is written in another way."""
    parsed = time.strptime(moment, FORM)
    if time.strftime(FORM, parsed) != moment:
        raise ValueError(moment)
    return calendar.timegm(parsed)
