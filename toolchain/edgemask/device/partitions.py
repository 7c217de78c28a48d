"""Where the partitions of a disk's image are: MBR and GPT, read strictly. What is not sound is refused, never guessed.

GPT: UEFI Specification 2.10, chapter 5. Extended (logical) partitions of an MBR are refused: no board's image has any.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgemask.errors import UserError

SECTOR = 512
MBR_ENTRY = struct.Struct("<B3xB3xII")
GPT_HEADER = struct.Struct("<8s4sII4xQQQQ16sQIII")
GPT_ENTRY = struct.Struct("<16s16sQQ")
PROTECTIVE, EXTENDED = 0xEE, {0x05, 0x0F, 0x85}
MOST_ENTRIES = 1024


@dataclass(frozen=True)
class Partition:
    """A partition: its number as the kernel counts it, and its place in bytes."""

    number: int
    start: int
    size: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.size


def partitions(path: Path) -> list[Partition]:
    """The partitions of an image; UserError where there is no table or it is not sound."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            found = _read(file, size, path)
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from error
    _check(found, size, path)
    return found


def _read(file: BinaryIO, size: int, path: Path) -> list[Partition]:
    sector = _at(file, 0, SECTOR)
    if len(sector) < SECTOR or sector[510:] != b"\x55\xaa":
        raise _broken(path, "it has no partition table")
    entries = [MBR_ENTRY.unpack_from(sector, 446 + 16 * index) for index in range(4)]
    if any(kind == PROTECTIVE for _, kind, _, _ in entries):
        return _read_gpt(file, size, path)
    if any(kind in EXTENDED for _, kind, _, _ in entries):
        raise _broken(path, "it has an extended partition")
    for flag, kind, _, _ in entries:
        if kind and flag not in (0, 0x80):
            raise _broken(path, "its partition table is none (an odd flag)")
    return [
        Partition(number, start * SECTOR, count * SECTOR)
        for number, (_, kind, start, count) in enumerate(entries, 1)
        if kind
    ]


def _read_gpt(file: BinaryIO, size: int, path: Path) -> list[Partition]:
    raw = _at(file, SECTOR, SECTOR)
    if len(raw) < GPT_HEADER.size:
        raise _broken(path, "its GPT is cut off")
    magic, _, length, checksum, own, _, _, _, _, table, count, each, entries_checksum = GPT_HEADER.unpack_from(raw)
    if magic != b"EFI PART" or own != 1 or not GPT_HEADER.size <= length <= SECTOR:
        raise _broken(path, "its GPT has no header")
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:length]) != checksum:
        raise _broken(path, "its GPT's header does not have its checksum")
    if not 0 < count <= MOST_ENTRIES or each < 128 or each % 128 or each > 4096:
        raise _broken(path, f"its GPT has {count} entries of {each} bytes")
    entries = _at(file, table * SECTOR, count * each) if table * SECTOR < size else b""
    if len(entries) != count * each or zlib.crc32(entries) != entries_checksum:
        raise _broken(path, "its GPT's entries do not have their checksum")
    return _gpt_entries(entries, each, path)


def _gpt_entries(entries: bytes, each: int, path: Path) -> list[Partition]:
    found = []
    for number, offset in enumerate(range(0, len(entries), each), 1):
        kind, _, first, last = GPT_ENTRY.unpack_from(entries, offset)
        if not any(kind):
            continue
        if last < first:
            raise _broken(path, f"partition {number} ends before it begins")
        found.append(Partition(number, first * SECTOR, (last - first + 1) * SECTOR))
    return found


def _check(found: list[Partition], size: int, path: Path) -> None:
    if not found:
        raise _broken(path, "its partition table is empty")
    for one in found:
        if not one.start or not one.size:
            raise _broken(path, f"partition {one.number} has no place")
        if one.end > size:
            raise _broken(path, f"partition {one.number} ends at byte {one.end}, behind the file's end at {size}")
    ordered = sorted(found, key=lambda one: one.start)
    for before, after in itertools.pairwise(ordered):
        if after.start < before.end:
            raise _broken(path, f"partitions {before.number} and {after.number} overlap")


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _broken(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: no sound disk image: {reason}", "download the image again and compare its checksum")
