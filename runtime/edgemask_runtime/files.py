"""Read and write whole files so that a fault is one clear error and nothing is left half-written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from edgemask_runtime.errors import UserError


def read_bytes(path: Path, *, limit_bytes: int) -> bytes:
    """Return the file's content; UserError when it is missing, unreadable or larger than `limit_bytes`."""
    try:
        with path.open("rb") as file:
            content = file.read(limit_bytes + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from error
    if len(content) > limit_bytes:
        raise UserError(f"{path}: larger than the {limit_bytes} bytes allowed here")
    return content


def write_atomic(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write beside `path`, sync, and rename over it: a reader sees the old file or the new one, never a part.

    The file has the rights `mode`, less the umask, before the first byte is in it.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _write_synced(beside, data, mode)
        beside.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror}", hint="check the folder and its rights") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def _write_synced(path: Path, data: bytes, mode: int) -> None:
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
