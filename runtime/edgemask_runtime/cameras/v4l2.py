"""A camera of the kernel's, through Video4Linux2: USB cameras, capture cards, and whatever else is /dev/video*."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from edgemask_runtime.cameras import SourceLost
from edgemask_runtime.cameras.conversion import converter
from edgemask_runtime.cameras.jpeg import JpegDecoder
from edgemask_runtime.cameras.negotiation import COLOURS, JPEGS, Mode, best, listed, remark
from edgemask_runtime.cameras.video4linux import Device, Filled, Layout, Sizes
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import CHANNELS, Format, Pixels
from edgemask_runtime.frames import Shot
from edgemask_runtime.manifest import FrameInput
from edgemask_runtime.strict_json import between

log = logging.getLogger("edgemaskd")


@dataclass(frozen=True)
class V4l2Settings:
    """The device, and what is asked of it: a pixel format by its four letters (None: what costs least), a pace.

    `buffers` are mapped: one waits, one is in work, the driver fills the others. A camera that gives nothing for
    `timeout_s` counts as lost.
    """

    device: Path = Path("/dev/video0")
    format: str | None = None
    fps: float | None = field(default=None, metadata=between(0.1, 1000))
    buffers: int = field(default=4, metadata=between(3, 32))
    timeout_s: float = field(default=5.0, metadata=between(0.1, 60))


class V4l2Camera:
    """Gives the driver's buffers as they lie, where the graph takes their format; a JPEG is decoded when it is read.

    `lost` counts the frames that the driver numbered and did not give, and those that it marked as broken.
    """

    Settings = V4l2Settings
    live = True

    def __init__(
        self, settings: V4l2Settings, frame: FrameInput, open_device: Callable[[Path], Device] = Device
    ) -> None:
        self._settings, self._path, self.lost = settings, settings.device, 0
        self._device = self._tried(open_device, settings.device)
        self._lock, self._closed, self._waiting = Lock(), False, False
        try:
            mode = best(self._modes(frame), frame, settings.fps)
            self._layout = self._tried(self._device.set_format, mode.fourcc, mode.width, mode.height)
            if settings.fps:
                self._tried(self._device.set_rate, settings.fps)
            self._read = _reader(self._layout, frame)
            self._memory = self._tried(self._device.start, settings.buffers)
        except BaseException:
            self._device.close()
            raise
        self.fps = 0.0 if settings.fps is None else settings.fps
        self._say(mode, frame)

    def __iter__(self) -> Iterator[Shot]:
        """Give each filled buffer; it goes back to the driver when its shot is released."""
        expected: int | None = None
        while filled := self._take():
            self.lost += 0 if expected is None else max(0, filled.sequence - expected)
            expected = filled.sequence + 1
            if filled.broken:
                self.lost += 1
                self._give_back(filled.buffer)
            else:
                name = f"{self._path.name}#{filled.sequence}"
                read, release = (
                    partial(self._pixels, self._memory[filled.buffer], filled.used),
                    partial(self._give_back, filled.buffer),
                )
                yield Shot(name, read, _no_later_than_now(filled.captured_ns), release)

    def close(self) -> None:
        """Let go of the camera; a frame in hand can still be read."""
        with self._lock:
            if not self._closed and self._waiting:
                self._device.wake()
            elif not self._closed:
                self._device.close()
            self._closed = True
            # Whatever is still mapped keeps an older kernel's camera busy; a shot in hand has its own reference.
            self._memory = []

    def _take(self) -> Filled | None:
        with self._lock:
            if self._closed:
                return None
            self._waiting = True
        try:
            filled: Filled | None = self._tried(self._device.take, self._settings.timeout_s)
        finally:
            with self._lock:
                self._waiting = False
                if self._closed:
                    self._device.close()
        return filled

    def _pixels(self, memory: Any, used: int) -> Pixels:
        return self._read(memoryview(memory)[:used])

    def _give_back(self, index: int) -> None:
        with self._lock:
            if not self._closed:
                self._tried(self._device.give_back, index)

    def _modes(self, frame: FrameInput) -> list[Mode]:
        wanted, device = self._settings.format, self._device
        fourccs = self._tried(device.fourccs)
        if wanted and wanted not in fourccs:
            raise UserError(f"{self._path}: has no format {wanted!r}", hint=f"it has {listed(fourccs)}")
        found: list[Mode] = self._tried(modes_of, device, [wanted] if wanted else fourccs, frame)
        return found

    def _say(self, mode: Mode, frame: FrameInput) -> None:
        got = Mode(self._layout.fourcc, self._layout.width, self._layout.height)
        log.info("%s (%s): %s", self._path, self._device.card, mode)
        if said := remark(got, frame):
            log.warning(
                "%s: %s for every frame that is answered: a bundle for what it has does without", self._path, said
            )

    def _tried(self, action: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return action(*arguments)
        except OSError as error:
            hint = "its group is video: usermod -aG video USER" if isinstance(error, PermissionError) else None
            raise SourceLost(f"{self._path}: {error.strerror or error}", hint) from error


def _no_later_than_now(captured_ns: int | None) -> int | None:
    """Some drivers state when the frame should have come by their timetable."""
    return None if captured_ns is None else min(captured_ns, time.monotonic_ns())


def modes_of(device: Device, fourccs: list[str], frame: Format | None) -> list[Mode]:
    """The modes of these formats; of a range of sizes the one nearest to the frame, or its largest."""
    sized = [(letters, _nearest(sizes, frame)) for letters in fourccs for sizes in device.sizes(letters)]
    return [Mode(letters, *size, device.rates(letters, *size)) for letters, size in sized]


def _nearest(sizes: Sizes, frame: Format | None) -> tuple[int, int]:
    if frame is None:
        return sizes.most
    wanted = (frame.width, frame.height)
    limits = zip(wanted, sizes.least, sizes.most, sizes.step, strict=True)
    width, height = (low + (min(max(want, low), high) - low) // step * step for want, low, high, step in limits)
    return width, height


def _reader(layout: Layout, frame: FrameInput) -> Callable[[memoryview], Pixels]:
    """What makes the graph's frame of a buffer that lies as the driver says."""
    if layout.fourcc in JPEGS:
        return JpegDecoder(frame).decode
    if layout.fourcc not in COLOURS:
        raise UserError(f"the camera gives {layout.fourcc}, which cannot be read")
    colour = COLOURS[layout.fourcc]
    coding = () if colour in CHANNELS else (layout.matrix, layout.range)
    return converter(Format(layout.width, layout.height, colour, layout.stride or None, *coding), frame.format)
