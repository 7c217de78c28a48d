"""Frames on their way from the camera to the engine: only the newest one waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from threading import Condition

from edgemask_runtime.formats import Pixels

NS_PER_MS, NS_PER_S = 1_000_000, 1_000_000_000


def wall_clock(monotonic_ns: int | None = None) -> str:
    """The UTC time of a moment of the monotonic clock, or now, in ISO 8601 with milliseconds."""
    ago_ns = 0 if monotonic_ns is None else time.monotonic_ns() - monotonic_ns
    moment = datetime.fromtimestamp((time.time_ns() - ago_ns) / NS_PER_S, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Shot:
    """What a camera gives: a name, and how to get its pixels, so that a dropped frame is never decoded.

    `captured_ns` is the monotonic time of capture where the driver states it; None is when the shot is given. What
    `read` returns may lie in a buffer of the camera's: it is valid until `release`, which is called once, from any
    thread, for a dropped shot too.
    """

    name: str
    read: Callable[[], Pixels]
    captured_ns: int | None = None
    release: Callable[[], None] = _nothing


@dataclass(frozen=True)
class Frame:
    """A shot with its number and the monotonic time of its capture."""

    shot: Shot
    frame_id: int
    captured_ns: int

    @property
    def age_ms(self) -> float:
        """The time since the capture."""
        return (time.monotonic_ns() - self.captured_ns) / NS_PER_MS


class Mailbox:
    """Holds one frame; a newer one replaces it, which is released and counted in `dropped`."""

    def __init__(self) -> None:
        self.dropped = 0
        self._changed = Condition()
        self._frame: Frame | None = None
        self._closed = False

    def put(self, frame: Frame) -> None:
        """Leave the frame for the next taker; after `close` it counts as dropped."""
        with self._changed:
            replaced = frame if self._closed else self._frame
            self._frame = self._frame if self._closed else frame
            self.dropped += replaced is not None
            self._changed.notify_all()
        if replaced:
            replaced.shot.release()

    def take(self, *, wait: bool = True) -> Frame | None:
        """Wait for a frame and remove it; None when the mailbox is closed and empty, or is not to be waited for."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._closed or not wait)
            frame, self._frame = self._frame, None
            self._changed.notify_all()
            return frame

    def drain(self) -> None:
        """Release the frame that is left and count it as dropped, after `close`."""
        if frame := self.take():
            self.dropped += 1
            frame.shot.release()

    def wait_until_empty(self) -> None:
        """Wait until the frame was taken, or the mailbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is None or self._closed)

    def close(self) -> None:
        """Wake everyone; the frame that is left can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
