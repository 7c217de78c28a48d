"""Read and write whole files so that a fault is one clear error and nothing is left half-written."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from edgemask_runtime.errors import UserError

UNREADABLE = "check the path, and that this user may read what is there"
CHUNK_BYTES = 1 << 20


def read_bytes(path: Path, *, limit_bytes: int) -> bytes:
    """Return the file's content; UserError when it is missing, unreadable or larger than `limit_bytes`."""
    try:
        with path.open("rb") as file:
            content = file.read(limit_bytes + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}", UNREADABLE) from error
    if len(content) > limit_bytes:
        raise UserError(f"{path}: larger than the {limit_bytes} bytes allowed here", "check that this file is meant")
    return content


def sha256_of(path: Path) -> str:
    """The digest of a file's content, in hexadecimal digits; OSError where it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomic(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write beside `path`, sync, and rename over it: a reader sees the old file or the new one, never a part.

    The file has the rights `mode`, less the umask, before the first byte is in it.
    """
    with replacing(path, mode=mode) as file:
        file.write(data)


@contextmanager
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """As `write_atomic`, for what is written piece by piece: the file lies at `path` when the block ends well."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "w+b", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror}", hint=_mend(error)) from error
    finally:
        with suppress(OSError):
            beside.unlink()


def _mend(error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "make room there, and run it again" if full else "check the folder and its rights"
