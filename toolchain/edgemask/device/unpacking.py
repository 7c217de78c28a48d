"""An image as it is downloaded, .img, .img.xz, .img.gz or .zip, to a plain file with holes where zeros are."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from edgemask.errors import UserError

BLOCK = 1 << 20
ZEROS = bytes(BLOCK)
KEPT_FREE = 64 << 20
MAGICS = ((b"\xfd7zXZ\x00", "xz"), (b"\x1f\x8b", "gz"), (b"PK\x03\x04", "zip"))
FAULTS = (lzma.LZMAError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError)
Progress = Callable[[str, int, int], None]


def is_packed(path: Path) -> bool:
    """Whether the file is a packed image, by its first bytes."""
    return _kind(path) is not None


def unpack(source: Path, to: IO[bytes], progress: Progress) -> None:
    """Write the image in `source` to an empty file; UserError when it is broken or the disk has no room for it."""
    size = source.stat().st_size
    try:
        with source.open("rb") as raw, _opened(raw, _kind(source), source) as image:
            _copy(image, to, lambda: progress("unpack", min(raw.tell(), size - 1), size))
    except FAULTS as error:
        raise UserError(f"{source}: is broken: {error}", "download it again and compare its checksum") from error
    progress("unpack", size, size)


def _kind(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}", "name an image of Raspberry Pi OS") from error
    return next((kind for magic, kind in MAGICS if head.startswith(magic)), None)


@contextmanager
def _opened(raw: IO[bytes], kind: str | None, source: Path) -> Iterator[IO[bytes]]:
    if kind == "xz":
        with lzma.open(raw) as file:
            yield cast(IO[bytes], file)
    elif kind == "gz":
        with gzip.open(raw) as file:
            yield cast(IO[bytes], file)
    elif kind == "zip":
        with zipfile.ZipFile(raw) as archive, archive.open(_member(archive, source)) as file:
            yield file
    else:
        yield raw


def _member(archive: zipfile.ZipFile, source: Path) -> str:
    images = [name for name in archive.namelist() if name.endswith(".img")]
    if len(images) != 1:
        raise UserError(f"{source}: holds {len(images)} .img files, not one", "unpack it, and name the image")
    return images[0]


def _copy(image: IO[bytes], to: IO[bytes], tell: Callable[[], Any]) -> None:
    while block := _block(image):
        if block == ZEROS[: len(block)]:
            to.seek(len(block), os.SEEK_CUR)
        else:
            _check_room(to)
            to.write(block)
        tell()
    to.truncate()


def _block(image: IO[bytes]) -> bytes:
    """A whole block where there is one: readers of packed files give what they have."""
    block = bytearray()
    while len(block) < BLOCK and (more := image.read(BLOCK - len(block))):
        block += more
    return bytes(block)


def _check_room(to: IO[bytes]) -> None:
    folder = Path(to.name).absolute().parent
    free = shutil.disk_usage(folder).free
    if free < KEPT_FREE + BLOCK:
        raise UserError(f"{folder}: only {free >> 20} MB are left there", "name a file on a larger disk: --out")
