"""Write an image to a disk past the page cache, and read it back: what was written is what the medium returns.

The first block comes last, so that a card whose writing was cut off boots nothing instead of half a system.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgemask.device.block_devices import Disk, find_disk
from edgemask.errors import UserError

BLOCK = 4 << 20
BLKRRPART, BLKFLSBUF, BLKGETSIZE64, BLKSSZGET = 0x125F, 0x1261, 0x80081272, 0x1268
# Root has another PATH, and other keys.
AS_ROOT = 'sudo "$(command -v edgemask)" flash ... --enrol ~/.config/edgemask/keys/NAME.pub'
Progress = Callable[[str, int, int], None]
Ask = Callable[[str], str]


@dataclass(frozen=True)
class Consent:
    """How it is made sure that the disk is the one meant: its name is typed, or its serial number given beforehand."""

    ask: Ask
    serial: str | None = None
    any_size: bool = False


def choose(path: Path, needed_bytes: int, consent: Consent) -> Disk:
    """The disk at a path once somebody said that it is the one; UserError otherwise."""
    disk = find_disk(path, needed_bytes, any_size=consent.any_size)
    if not os.access(disk.path, os.R_OK | os.W_OK, effective_ids=True):
        raise _no_access(disk, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    if consent.serial is not None:
        if not disk.serial or disk.serial != consent.serial:
            told = f"its serial number is {disk.serial}" if disk.serial else "it tells no serial number"
            raise UserError(f"{path}: is not the disk {consent.serial!r}: {told}", "nothing was written")
        return disk
    question = f"{disk.text()}\nEverything on it will be lost. Type {disk.name} to go on"
    if consent.ask(question).strip() != disk.name:
        raise UserError(f"{path}: {disk.name} was not typed", "nothing was written")
    return disk


def write_disk(image: Path, disk: Disk, progress: Progress) -> None:
    """Write the image over the disk's beginning, and compare every byte with what the disk gives back."""
    size = image.stat().st_size
    with image.open("rb") as source, _opened(disk, os.O_RDWR) as target:
        _write(source, target, size, disk, progress)
        fcntl.ioctl(target, BLKFLSBUF)
    with image.open("rb") as source, _opened(disk, os.O_RDONLY) as target:
        _compare(source, target, size, disk, progress)
    # A desktop may have opened the new partitions already; then the kernel knows them.
    with suppress(OSError), _opened(disk, os.O_RDONLY) as target:
        fcntl.ioctl(target, BLKRRPART)


@contextmanager
def _opened(disk: Disk, how: int) -> Iterator[int]:
    """The disk, for nobody else: the kernel refuses one of which a part is mounted or held."""
    try:
        target = os.open(disk.path, how | os.O_DIRECT | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        raise _no_access(disk, error) from error
    try:
        size = struct.unpack("Q", fcntl.ioctl(target, BLKGETSIZE64, bytes(8)))[0]
        if size != disk.size:
            raise UserError(f"{disk.path}: is another disk than before, of {size} bytes", "try again")
        yield target
    finally:
        os.close(target)


def _no_access(disk: Disk, error: OSError) -> UserError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return UserError(f"{disk.path}: only root may write to it", AS_ROOT)
    if error.errno == errno.EBUSY:
        return UserError(f"{disk.path}: is in use", f"what uses it: lsblk {disk.path}; sudo umount {disk.path}*")
    return UserError(f"{disk.path}: cannot open: {error.strerror}", "is the card still in the reader?")


def _write(source: BinaryIO, target: int, size: int, disk: Disk, progress: Progress) -> None:
    with mmap.mmap(-1, BLOCK) as buffer, memoryview(buffer) as view:
        try:
            _put(target, 0, view[: _padded(min(BLOCK, size), target)])
            for offset in range(BLOCK, size, BLOCK):
                _put(target, offset, view[: _fill(source, view, offset, target)])
                progress("write", min(offset + BLOCK, size), size)
            os.fsync(target)
            _put(target, 0, view[: _fill(source, view, 0, target)])
            os.fsync(target)
        except OSError as error:
            raise _failed(disk, "writing", error) from error
    progress("write", size, size)


def _compare(source: BinaryIO, target: int, size: int, disk: Disk, progress: Progress) -> None:
    with mmap.mmap(-1, BLOCK) as wanted, mmap.mmap(-1, BLOCK) as got, memoryview(got) as view:
        for offset in range(0, size, BLOCK):
            length = min(BLOCK, size - offset)
            with memoryview(wanted) as there:
                padded = _fill(source, there, offset, target)
            try:
                read = os.preadv(target, [view[:padded]], offset)
            except OSError as error:
                raise _failed(disk, "reading back", error) from error
            if read != padded or got[:length] != wanted[:length]:
                place = f"between bytes {offset} and {offset + length}"
                fault = f"{disk.path}: does not return what was written, {place}"
                raise UserError(fault, "the card is broken: take another")
            progress("verify", offset + length, size)


def _fill(source: BinaryIO, view: memoryview, offset: int, target: int) -> int:
    """Read a block of the image; the rest of its last sector is zeros."""
    source.seek(offset)
    length = source.readinto(view)  # type: ignore[attr-defined]
    padded = _padded(length, target)
    view[length:padded] = bytes(padded - length)
    return padded


def _padded(length: int, target: int) -> int:
    sector: int = struct.unpack("i", fcntl.ioctl(target, BLKSSZGET, bytes(4)))[0]
    return -(-length // sector) * sector


def _put(target: int, offset: int, block: memoryview) -> None:
    while block:
        written = os.pwritev(target, [block], offset)
        offset += written
        block = block[written:]


def _failed(disk: Disk, doing: str, error: OSError) -> UserError:
    hint = "is the card still in the reader? then it is broken: take another"
    return UserError(f"{disk.path}: {doing} failed: {error.strerror}", hint)
