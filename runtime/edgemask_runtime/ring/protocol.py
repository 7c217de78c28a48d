"""The ring's messages and where things lie in its memory: little-endian, whole numbers only (docs/formats.md)."""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Pixels
from edgemask_runtime.manifest import Manifest, OutputRecord

MAGIC, VERSION = b"EMSK", 1
WELCOME = struct.Struct("<4sIQQIIII")
ATTACH = struct.Struct("<4sIII")
REQUEST = struct.Struct("<QII")
ANSWER = struct.Struct("<QII")
OK, FAILED, GOING, NO_ENTROPY = 0, 1, 2, 3
"""An answer's status; all but OK are followed by text."""

ALIGNMENT = 64
MAX_SLOTS, MAX_ROWS = 16, 64
MAX_MEMORY_BYTES = 1 << 28
MAX_TEXT_BYTES = 2000
MAX_PACKET_BYTES = 1 << 16
FREE_AXES_BYTES = 1 << 20
"""Room for an output whose size no manifest can state."""


class Welcome(NamedTuple):
    """What a server says first: bytes of a frame and of a row's outputs; `batch` rows a request, 0 any number."""

    frame_bytes: int
    output_bytes: int
    batch: int
    max_rows: int
    max_slots: int
    about_bytes: int

    def pack(self) -> bytes:
        """The message."""
        return WELCOME.pack(MAGIC, VERSION, *self)

    def allows(self, layout: Layout) -> bool:
        """Whether a client may have so many slots and rows; one slot for the least request is always to be had."""
        fewest = self.batch or 1
        if not 1 <= layout.slots <= self.max_slots or not fewest <= layout.rows <= self.max_rows:
            return False
        return layout.memory_bytes <= MAX_MEMORY_BYTES or (layout.slots, layout.rows) == (1, fewest)

    @classmethod
    def unpack(cls, packet: bytes) -> Welcome:
        """Read the message; UserError when it is of another version, or no such message."""
        if len(packet) != WELCOME.size or packet[:4] != MAGIC:
            raise UserError("what listens on this socket is no Edgemask model")
        _, version, *rest = WELCOME.unpack(packet)
        if version != VERSION:
            raise UserError(f"the daemon speaks version {version} of the ring, not {VERSION}", "install both again")
        return cls(*rest)


@dataclass(frozen=True)
class Layout:
    """Where slots, their frames and their outputs lie in the memory; both sides compute it, neither reads it there."""

    slots: int
    rows: int
    frame_bytes: int
    output_bytes: int

    @property
    def outputs_begin(self) -> int:
        """Bytes from a slot's begin to its outputs."""
        return aligned(self.rows * self.frame_bytes)

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot."""
        return self.outputs_begin + aligned(self.rows * self.output_bytes)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the whole memory."""
        return self.slots * self.slot_bytes

    def frames_at(self, slot: int) -> int:
        """Where the slot's frames begin."""
        return slot * self.slot_bytes

    def outputs_at(self, slot: int) -> int:
        """Where the slot's outputs begin; they end with the slot."""
        return slot * self.slot_bytes + self.outputs_begin


def frames_in(memory: mmap.mmap, layout: Layout, slot: int, shape: tuple[int, ...]) -> Pixels:
    """The slot's frames, uint8 [rows, *shape]."""
    return np.ndarray((layout.rows, *shape), np.uint8, memory, layout.frames_at(slot))


def aligned(size: int) -> int:
    """The size, rounded up to where the next tensor may begin."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def welcome(manifest: Manifest, about_bytes: int) -> Welcome:
    """What a server of this model says first."""
    frame = math.prod(manifest.frame.shape)
    batch = manifest.frame.batch
    outputs = sum(aligned(_row_bytes(record, batch or 1)) for record in manifest.outputs)
    most = max(1, min(MAX_ROWS, MAX_MEMORY_BYTES // 2 // (frame + outputs)))
    return Welcome(frame, outputs, batch or 0, batch or most, MAX_SLOTS, about_bytes)


def places(outputs: Sequence[OutputRecord]) -> struct.Struct:
    """What follows an answer that is OK: of each output where it begins, and its sizes."""
    return struct.Struct("<" + "".join(f"{1 + len(record.shape)}Q" for record in outputs))


def item_bytes(record: OutputRecord) -> int:
    """Bytes of one value; UserError for values that do not lie in memory as they are."""
    try:
        kind = np.dtype(record.dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind.hasobject:
        raise UserError(f"output {record.name!r} is {record.dtype}, which has no place in memory", "leave it out")
    return kind.itemsize


def text_of(error: UserError) -> bytes:
    """The error as an answer's text: message, newline, hint."""
    return f"{error.message}\n{error.hint or ''}".encode()[:MAX_TEXT_BYTES]


def told(text: bytes) -> tuple[str, str | None]:
    """Message and hint of an answer's text."""
    message, _, hint = text.decode(errors="replace").partition("\n")
    return message, hint or None


def _row_bytes(record: OutputRecord, batch: int) -> int:
    """Bytes that one row may need, of a request of `batch` rows."""
    sizes = [size for size in record.shape[1:] if size is not None]
    rows = (record.shape[0] or batch) if record.shape else 1
    fixed = -(-rows * math.prod(sizes) * item_bytes(record) // batch)
    # Why also the first axis of a raw output: it may be the number of things found, and not of frames.
    free = None in (record.shape if record.role == "raw" else record.shape[1:])
    return max(fixed, FREE_AXES_BYTES) if free else fixed
