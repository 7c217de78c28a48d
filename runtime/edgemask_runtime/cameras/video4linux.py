"""The kernel's side of Video4Linux2: one device, its formats and its mapped buffers; no decision is taken here.

Why not linuxpy: it is under the GPL, this package under Apache, and thirteen requests are all that is needed. Only the
single-planar interface is spoken, which every USB camera has.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import select
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from edgemask_runtime.formats import Matrix, Range
from edgemask_runtime.frames import NS_PER_S

CAPTURE, MMAP, PROGRESSIVE = 1, 1, 1
CAN_CAPTURE, CAN_STREAM, TELLS_DEVICE = 0x1, 0x0400_0000, 0x8000_0000
BROKEN, CLOCK_MASK, CLOCK_MONOTONIC = 0x40, 0xE000, 0x2000
DISCRETE = 1
FULL_RANGE, LIMITED_RANGE = 1, 2
JPEG_COLOURS = 7
ENCODINGS: dict[int, Matrix] = {1: "bt601", 2: "bt709", 3: "bt601", 4: "bt709"}
COLOURSPACES_OF_BT709 = (3, 12)
MOST_LISTED = 256
MICROSECOND_NS = 1000


class Request(NamedTuple):
    """An ioctl: its direction (1 write, 2 read), number and structure, in the notation of `struct`."""

    direction: int
    number: int
    layout: str

    @property
    def code(self) -> int:
        """What the kernel knows it by."""
        return self.direction << 30 | struct.calcsize(self.layout) << 16 | ord("V") << 8 | self.number


BUFFER = "@5I2l2I8B2IL2Ii0l"
FORMAT = "@I0P12I152x"
REQUESTS = {
    "QUERYCAP": Request(2, 0, "@16s32s32s3I12x"),
    "ENUM_FMT": Request(3, 2, "@3I32sI16x"),
    "S_FMT": Request(3, 5, FORMAT),
    "REQBUFS": Request(3, 8, "@4IB3x"),
    "QUERYBUF": Request(3, 9, BUFFER),
    "QBUF": Request(3, 15, BUFFER),
    "DQBUF": Request(3, 17, BUFFER),
    "STREAMON": Request(1, 18, "@i"),
    "STREAMOFF": Request(1, 19, "@i"),
    "S_PARM": Request(3, 22, "@11I160x"),
    "ENUM_FRAMESIZES": Request(3, 74, "@9I8x"),
    "ENUM_FRAMEINTERVALS": Request(3, 75, "@11I8x"),
}
# Whoever does not say so is not told how the colours are coded.
EXTENDED = 0xFEED_CAFE


class Sizes(NamedTuple):
    """The frame sizes that a format has: width and height from `least` to `most` in steps."""

    least: tuple[int, int]
    most: tuple[int, int]
    step: tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """What the driver settled on: `stride` is the bytes from one row to the next, 0 for JPEG."""

    fourcc: str
    width: int
    height: int
    stride: int
    matrix: Matrix | None
    range: Range


class Filled(NamedTuple):
    """A buffer that the driver filled: when (monotonic, None if it says so on no known clock), and its number."""

    buffer: int
    used: int
    captured_ns: int | None
    sequence: int
    broken: bool


class Device:
    """An open capture device; OSError when the kernel refuses. One thread takes, any thread gives back."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            self._query()
        except OSError:
            self.close()
            raise

    def _query(self) -> None:
        driver, card, bus, _, capabilities, own = self._ask("QUERYCAP")
        self.driver, self.card, self.bus = _text(driver), _text(card), _text(bus)
        capabilities = own if capabilities & TELLS_DEVICE else capabilities
        if not (capabilities & CAN_CAPTURE and capabilities & CAN_STREAM):
            raise OSError(errno.ENOTSUP, "no camera: it does not capture into mapped buffers")

    def fourccs(self) -> list[str]:
        """The four letters of each pixel format."""
        return [_letters(found[4]) for found in self._listed("ENUM_FMT", CAPTURE)]

    def sizes(self, fourcc: str) -> list[Sizes]:
        """The frame sizes of a format."""
        found = [Sizes(*_size(values)) for values in self._listed("ENUM_FRAMESIZES", _number(fourcc))]
        return list(dict.fromkeys(found))

    def rates(self, fourcc: str, width: int, height: int) -> tuple[float, ...]:
        """Frames a second in that size: each one, or the lowest and the highest of a range; empty when not told."""
        listed = self._listed("ENUM_FRAMEINTERVALS", _number(fourcc), width, height)
        spans = [value[5:7] if value[4] == DISCRETE else value[5:9] for value in listed]
        pairs = [span[at : at + 2] for span in spans for at in range(0, len(span), 2)]
        return tuple(sorted({round(below / above, 3) for above, below in pairs if above}))

    def set_format(self, fourcc: str, width: int, height: int) -> Layout:
        """Ask for a format; what comes back is what the driver gives instead, if it has none such."""
        _, wide, high, letters, _, stride, _, colours, _, _, encoding, span, _ = self._ask(
            "S_FMT", CAPTURE, width, height, _number(fourcc), PROGRESSIVE, 0, 0, 0, EXTENDED
        )
        matrix = ENCODINGS.get(encoding) if encoding else "bt709" if colours in COLOURSPACES_OF_BT709 else "bt601"
        full = span == FULL_RANGE or (span != LIMITED_RANGE and colours == JPEG_COLOURS)
        return Layout(_letters(letters), wide, high, stride, matrix, "full" if full else "limited")

    def set_rate(self, fps: float) -> None:
        """Ask for a pace; a driver that has none keeps its own."""
        try:
            self._ask("S_PARM", CAPTURE, 0, 0, 1000, round(fps * 1000))
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL):
                raise

    def start(self, buffers: int) -> list[mmap.mmap]:
        """Map that many buffers, or as many as the driver gives, and let it fill them."""
        given = self._ask("REQBUFS", buffers, CAPTURE, MMAP)[0]
        memory = []
        for index in range(given):
            *_, offset, length, _, _ = self._buffer("QUERYBUF", index)
            memory.append(mmap.mmap(self._file, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset))
            self.give_back(index)
        self._ask("STREAMON", CAPTURE)
        return memory

    def take(self, timeout_s: float) -> Filled | None:
        """Wait for the next filled buffer; None after `wake`. TimeoutError when none comes, OSError when it is gone."""
        waiting = select.poll()
        waiting.register(self._file, select.POLLIN)
        waiting.register(self._wake, select.POLLIN)
        ready = dict(waiting.poll(timeout_s * 1000))
        if self._wake in ready:
            return None
        if not ready:
            raise TimeoutError(errno.ETIMEDOUT, f"no frame for {timeout_s:g} s")
        index, _, used, flags, _, seconds, microseconds, *_, sequence, _, _, _, _, _ = self._buffer("DQBUF", 0)
        captured_ns = seconds * NS_PER_S + microseconds * MICROSECOND_NS
        known = flags & CLOCK_MASK == CLOCK_MONOTONIC
        return Filled(index, used, captured_ns if known else None, sequence, bool(flags & BROKEN))

    def give_back(self, index: int) -> None:
        """Let the driver fill that buffer again."""
        self._buffer("QBUF", index)

    def wake(self) -> None:
        """End the wait in `take`, now and for good."""
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Let go of the device; memory that is mapped stays so until nobody refers to it."""
        # Why not leave that to the end of the file: a mapping keeps the file open, and the camera busy.
        for request, values in (("STREAMOFF", (CAPTURE,)), ("REQBUFS", (0, CAPTURE, MMAP))):
            with suppress(OSError):
                self._ask(request, *values)
        os.close(self._file)
        os.close(self._wake)

    def _buffer(self, name: str, index: int) -> tuple[Any, ...]:
        """Index, type, bytes used, flags, field, time (2), time code (10), number, memory, offset, length, two more."""
        return self._ask(name, index, CAPTURE, *[0] * 16, MMAP)

    def _ask(self, name: str, *values: Any) -> tuple[Any, ...]:
        request = REQUESTS[name]
        empty = struct.unpack(request.layout, bytes(struct.calcsize(request.layout)))
        content = bytearray(struct.pack(request.layout, *values, *empty[len(values) :]))
        fcntl.ioctl(self._file, request.code, content, True)
        return struct.unpack(request.layout, content)

    def _listed(self, name: str, *values: int) -> Iterator[tuple[Any, ...]]:
        # The kernel ends a list, one that does not exist too, with an error.
        try:
            for index in range(MOST_LISTED):
                yield self._ask(name, index, *values)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTTY, errno.ENODATA):
                raise


def capture_devices() -> list[Path]:
    """The video devices of this machine, by number; some may be no cameras."""
    found = [path for path in Path("/dev").glob("video*") if path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def _size(values: tuple[Any, ...]) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    if values[2] == DISCRETE:
        return values[3:5], values[3:5], (1, 1)
    low_w, high_w, step_w, low_h, high_h, step_h = values[3:9]
    return (low_w, low_h), (high_w, high_h), (max(1, step_w), max(1, step_h))


def _text(content: bytes) -> str:
    return content.partition(b"\0")[0].decode(errors="replace")


def _letters(number: int) -> str:
    return struct.pack("<I", number).decode("latin-1").rstrip()


def _number(fourcc: str) -> int:
    return int.from_bytes(fourcc.ljust(4).encode("latin-1"), "little")
