"""The wheels at hand, by digest, in the user's cache folder; what is taken from it is read and compared again."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgemask.conversion.folders import user_cache
from edgemask.errors import UserError
from edgemask.wheels.lock import Pin
from edgemask_runtime.files import write_atomic


def cache() -> Path:
    """Where wheels are kept: one folder each, named by the wheel's sha256."""
    return user_cache("wheels")


def kept(pin: Pin) -> Path | None:
    """The wheel, whole and unaltered; None where it is not, whatever lies there."""
    return next((path for path in (cache() / pin.sha256).glob("*.whl") if sha256_of(path) == pin.sha256), None)


@contextmanager
def workspace() -> Iterator[Path]:
    """A folder beside the kept wheels that goes with what is left in it."""
    _folder(cache())
    with tempfile.TemporaryDirectory(dir=cache(), ignore_cleanup_errors=True) as name:
        yield Path(name)


def keep(wheel: Path) -> Path:
    """Move a wheel from the workspace to its place, which is returned."""
    with wheel.open("rb") as file:
        os.fsync(file.fileno())
    return wheel.replace(_folder(cache() / sha256_of(wheel)) / wheel.name)


def keep_bytes(name: str, content: bytes) -> Path:
    """Write a wheel that was made here, unless it is there; its place."""
    place = cache() / hashlib.sha256(content).hexdigest() / name
    with suppress(OSError):
        if place.read_bytes() == content:
            return place
    _folder(place.parent)
    write_atomic(place, content)
    return place


def sha256_of(path: Path) -> str:
    """Digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror}", "mend its rights, or set XDG_CACHE_HOME") from error
    return path
