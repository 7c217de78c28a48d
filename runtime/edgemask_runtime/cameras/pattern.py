"""A test pattern: it moves, and every frame carries its number in its pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from threading import Event

import numpy as np

from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import SPANS, YUV, Format, Pixels, pixels_of, plane_rows, planes_of
from edgemask_runtime.frames import Shot
from edgemask_runtime.images import in_format, recolour
from edgemask_runtime.manifest import FrameInput
from edgemask_runtime.strict_json import between

SIDE = 4
BITS = SIDE * SIDE
LEAST_HEIGHT = 2 * SIDE


@dataclass(frozen=True)
class PatternSettings:
    """The pace, 0 for as fast as frames are answered, and after how many frames it ends (None: never)."""

    fps: float = field(default=30.0, metadata=between(0, 1000))
    frames: int | None = field(default=None, metadata=between(1, 2**53))


class PatternCamera:
    """The upper half shows the frame's number in 4 x 4 black and white fields, the lower half colours that wander."""

    Settings = PatternSettings
    live = False

    def __init__(self, settings: PatternSettings, frame: FrameInput) -> None:
        if frame.width < SIDE or frame.height < LEAST_HEIGHT:
            raise UserError(
                f"the test pattern needs {SIDE}x{LEAST_HEIGHT} pixels, the graph takes {frame.width}x{frame.height}"
            )
        self.fps = settings.fps
        self._frame, self._frames = frame.format, settings.frames
        self._base = _colours(self._frame)
        self._closed = Event()

    def __iter__(self) -> Iterator[Shot]:
        """Give the frames; each is drawn when it is read."""
        for number in count() if self._frames is None else range(self._frames):
            if self._closed.is_set():
                return
            yield Shot(f"pattern#{number}", partial(self.drawn, number))

    def close(self) -> None:
        """Stop before the next frame."""
        self._closed.set()

    def drawn(self, number: int) -> Pixels:
        """The frame of that number."""
        drawn, frame = self._base.copy(), self._frame
        for target, source in zip(plane_rows(drawn, frame), plane_rows(self._base, frame), strict=True):
            half, pair = len(target) // 2, 2 * target.shape[1] // frame.width
            target[half:] = np.roll(source[half:], number % (frame.width // 2) * pair, axis=1)
        black, white = _levels(frame)
        luma = _luma(drawn, frame)
        bits = number >> np.arange(BITS).reshape(SIDE, SIDE) & 1
        high, wide = _cell(frame)
        fields = np.kron(bits, np.ones((high, wide), int))[..., np.newaxis]
        luma[: SIDE * high, : SIDE * wide] = black + (white - black) * fields
        return drawn


def number_in(pixels: Pixels, shown: Format) -> int:
    """The frame's number, modulo 2**16, in what the test pattern drew, or in what a codec left of it."""
    high, wide = _cell(shown)
    middles = _luma(pixels, shown)[high // 2 : SIDE * high : high, wide // 2 : SIDE * wide : wide].mean(axis=2)
    return int(np.sum((middles > sum(_levels(shown)) / 2) << np.arange(BITS).reshape(SIDE, SIDE)))


def _colours(frame: Format) -> Pixels:
    """Gray above, and below it hues along the width, brighter towards the bottom, in the frame's format."""
    hue = 2 * np.pi * np.arange(frame.width) / frame.width
    waves = np.stack([np.cos(hue), np.cos(hue - 2), np.cos(hue + 2)], axis=-1)
    rgb = np.full((frame.height, frame.width, 3), 128.0)
    half = frame.height // 2
    rgb[half:] += 90 * np.linspace(0.3, 1, frame.height - half)[:, np.newaxis, np.newaxis] * waves
    whole = rgb.astype(np.uint8)
    return in_format(whole if frame.colour in YUV else recolour(whole, frame.colour), frame)


def _luma(buffer: Pixels, frame: Format) -> Pixels:
    """What the number is written into, height x width x 1 or 3: a view."""
    return planes_of(buffer, frame)[0] if frame.colour in YUV else pixels_of(buffer, frame)[..., :3]


def _levels(frame: Format) -> tuple[int, int]:
    span = SPANS[frame.range or "limited"]
    return (span.black, span.black + span.luma) if frame.colour in YUV else (0, 255)


def _cell(frame: Format) -> tuple[int, int]:
    return frame.height // (2 * SIDE), frame.width // SIDE
