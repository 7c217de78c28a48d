"""Looking again and again for a moment before sleeping: to wake a sleeper takes longer than a small model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

MOMENT_NS = 100_000
PAUSE = 16
T = TypeVar("T")


class Patience:
    """Whether to look or to sleep: a moment of looking that was in vain is followed by many waits without one.

    So a slow model costs its waiters next to nothing more. Where one processor is all there is nobody looks: that would
    keep from work whoever is waited for.
    """

    def __init__(self) -> None:
        self._pause, self._alone = 0, len(os.sched_getaffinity(0)) < 2

    def wait(self, look: Callable[[], T | None], sleep: Callable[[], T]) -> T:
        """What `look` finds within a moment, or else `sleep`."""
        if self._alone or self._pause:
            self._pause = max(0, self._pause - 1)
            return sleep()
        end_ns = time.monotonic_ns() + MOMENT_NS
        while time.monotonic_ns() < end_ns:
            if found := look():
                return found
        self._pause = PAUSE
        return sleep()
