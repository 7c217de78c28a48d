"""The newest answer of a pipeline with its picture, for whoever looks at the page."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Condition

from edgemask_runtime.answers import Answer
from edgemask_runtime.formats import Pixels
from edgemask_runtime.images import encoded_picture, picture_of
from edgemask_runtime.manifest import FrameInput
from edgemask_runtime.sinks import SinkContext

WATCHED_S = 5.0
MAX_WIDTH = 960
QUALITY = 80


@dataclass(frozen=True)
class Shown:
    """What is on the screen: an answer with its frame, or why there is none; each has a number of its own."""

    number: int
    answer: Answer | None = None
    pixels: Pixels | None = None
    invalid: str | None = None


class Screen:
    """A sink that asks for pictures only while somebody looks."""

    def __init__(self, context: SinkContext) -> None:
        self._context = context
        self._changed = Condition()
        self._shown = Shown(0, invalid="no answer yet")
        self._watched_until_s = 0.0
        self._closed = False
        self.viewers = 0

    @property
    def frame(self) -> FrameInput:
        """The frames' format."""
        return self._context.manifest.frame

    @property
    def wants_pixels(self) -> bool:
        """Whether anybody looked lately."""
        return time.monotonic() < self._watched_until_s

    def write(self, answer: Answer, pixels: Pixels | None) -> None:
        """Show an answer."""
        self._show(Shown(self._shown.number + 1, answer, pixels))

    def invalidate(self, reason: str) -> None:
        """Show that there is no valid answer."""
        self._show(Shown(self._shown.number + 1, invalid=reason))

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def newest(self, after: int, timeout_s: float) -> Shown | None:
        """Wait for what has another number than `after`; None when nothing came in time, or no more will."""
        self._watched_until_s = time.monotonic() + timeout_s + WATCHED_S
        with self._changed:
            self.viewers += 1
            self._changed.wait_for(lambda: self._shown.number != after or self._closed, timeout_s)
            self.viewers -= 1
            return self._shown if self._shown.number != after else None

    def picture(self, pixels: Pixels) -> bytes:
        """The frame as a JPEG of at most 960 columns; every second pixel, or third, of a wider one."""
        shown = picture_of(pixels, self.frame)
        step = -(-shown.shape[1] // MAX_WIDTH)
        return encoded_picture(shown[::step, ::step], "jpeg", QUALITY)

    def _show(self, shown: Shown) -> None:
        with self._changed:
            self._shown = shown
            self._changed.notify_all()
