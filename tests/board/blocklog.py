"""What QEMU's blklogwrites recorded of a disk, in the format of Linux' dm-log-writes: every write and every flush."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# Documentation/admin-guide/device-mapper/log-writes.rst, and log_write_super and log_write_entry of its source.
SUPER, ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")
MAGIC, VERSION = 0x6A736677736872, 1
FLUSH, DISCARD = 1, 4


@dataclass(frozen=True)
class Write:
    """Bytes that went to the disk at `offset`; discarded ones read as zeros."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class Epoch:
    """The writes between two flushes: until the second, any of them may or may not be on the disk."""

    writes: tuple[Write, ...]


def epochs(log: Path) -> list[Epoch]:
    """The recording, split at the flushes; what came behind the last flush is the last epoch."""
    found: list[Epoch] = []
    writes: list[Write] = []
    with log.open("rb") as file:
        for write in _entries(file):
            if write is None:
                found.append(Epoch(tuple(writes)))
                writes = []
            else:
                writes.append(write)
    return [*found, Epoch(tuple(writes))]


def _entries(file: IO[bytes]) -> Iterator[Write | None]:
    """Every write; None for a flush."""
    magic, version, count, sector = SUPER.unpack(file.read(SUPER.size))
    assert (magic, version) == (MAGIC, VERSION)
    position = sector
    for _ in range(count):
        file.seek(position)
        start, length, flags, _ = ENTRY.unpack(file.read(ENTRY.size))
        position += sector
        if flags & FLUSH:
            yield None
        if not length:
            continue
        if flags & DISCARD:
            yield Write(start * sector, bytes(length * sector))
            continue
        file.seek(position)
        yield Write(start * sector, file.read(length * sector))
        position += length * sector


def apply(disk: IO[bytes], writes: tuple[Write, ...] | list[Write]) -> None:
    """Let the writes reach the disk."""
    for write in writes:
        disk.seek(write.offset)
        disk.write(write.data)


def torn(epoch: Epoch, seed: int) -> list[Write]:
    """Some of an epoch's writes in their order, one of them cut off at a sector: as a power cut may leave them."""
    chance = random.Random(seed)
    kept = [write for write in epoch.writes if chance.random() < 0.5]
    if kept:
        index = chance.randrange(len(kept))
        sectors = chance.randrange(len(kept[index].data) // 512 + 1)
        kept[index] = Write(kept[index].offset, kept[index].data[: sectors * 512])
    return kept
