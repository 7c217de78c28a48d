"""Shared memory that a client of this machine registers, to hand over tensors without sending them."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from edgemask_runtime.api.errors import RequestError
from edgemask_runtime.formats import Pixels

FOLDER = Path("/dev/shm")  # noqa: S108
KEY = re.compile(r"/?([A-Za-z0-9_-][A-Za-z0-9._-]{0,199})")
MAX_NAME_CHARS = 200
MAX_REGIONS = 256
MAX_OFFSET = 1 << 40


@dataclass(frozen=True)
class Place:
    """Where in a region a tensor lies."""

    region: str
    offset: int
    size: int


@dataclass(frozen=True)
class Region:
    """A registered region: `size` bytes at `offset` of the shared memory object `key`."""

    name: str
    key: str
    offset: int
    size: int
    file: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as the protocol states it."""
        return {"name": self.name, "key": self.key, "offset": self.offset, "byte_size": self.size}


class Regions:
    """The regions that are registered.

    They are read and written by system calls and not mapped: whoever shortens the object under a mapping would end the
    daemon by a bus error, and whoever changes it while the model runs would change what the model sees.
    """

    def __init__(self) -> None:
        self._regions: dict[str, Region] = {}
        self._entered = Lock()

    def register(self, name: str, key: str, offset: int, size: int) -> None:
        """Open the object; RequestError unless it is this user's own and large enough."""
        _check_name(name)
        if not (0 <= offset <= MAX_OFFSET and 0 < size <= MAX_OFFSET):
            raise RequestError(400, f"'offset' is 0 or more and 'byte_size' 1 or more, neither above {MAX_OFFSET}")
        with self._entered:
            if name in self._regions:
                raise RequestError(400, f"shared memory region {name!r} is registered already; unregister it first")
            if len(self._regions) >= MAX_REGIONS:
                raise RequestError(400, f"{MAX_REGIONS} regions are registered already; unregister some")
            self._regions[name] = Region(name, key, offset, size, _opened(key, offset + size))

    def unregister(self, name: str | None = None) -> None:
        """Close one region, or all; one that is unknown is no fault, as with Triton."""
        _check_name("all" if name is None else name)
        with self._entered:
            for found in [name] if name is not None else list(self._regions):
                region = self._regions.pop(found, None)
                if region is not None:
                    os.close(region.file)

    def status(self, name: str | None = None) -> list[Region]:
        """All regions, or the one of this name; RequestError when there is none."""
        with self._entered:
            if name is None:
                return [self._regions[each] for each in sorted(self._regions)]
            _check_name(name)
            return [self._found(name)]

    def read(self, place: Place) -> Pixels:
        """Copy what lies there."""
        data = np.empty(place.size, np.uint8)
        with self._entered:
            region = self._within(place)
            count = os.preadv(region.file, [data.data], region.offset + place.offset) if place.size else 0
        if count != place.size:
            raise RequestError(400, f"shared memory region {place.region!r} has become shorter than it was registered")
        return data

    def write(self, place: Place, data: memoryview) -> None:
        """Copy an output there; RequestError when it has more bytes than the place."""
        if data.nbytes > place.size:
            raise RequestError(400, f"the output has {data.nbytes} bytes, its place in {place.region!r} {place.size}")
        with self._entered:
            region = self._within(place)
            # Why look again: writing behind the end would make the object longer.
            long_enough = os.fstat(region.file).st_size >= region.offset + place.offset + data.nbytes
            count = os.pwrite(region.file, data, region.offset + place.offset) if long_enough else -1
        if count != data.nbytes:
            raise RequestError(400, f"shared memory region {place.region!r} has become shorter than it was registered")

    def _within(self, place: Place) -> Region:
        region = self._found(place.region)
        if place.offset + place.size > region.size:
            end = place.offset + place.size
            raise RequestError(400, f"byte {end} is behind the {region.size} of shared memory region {region.name!r}")
        return region

    def _found(self, name: str) -> Region:
        if name not in self._regions:
            raise RequestError(404, f"shared memory region {name!r} is not registered")
        return self._regions[name]


def _check_name(name: str) -> None:
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise RequestError(400, f"a region's name has 1 to {MAX_NAME_CHARS} characters")


def _opened(key: str, end: int) -> int:
    match = KEY.fullmatch(key)
    if match is None:
        raise RequestError(
            400, f"key {key[:80]!r} names no shared memory: a slash, then letters, digits, '.', '_', '-'"
        )
    # Why no blocking: the name may be a pipe's that nobody writes to.
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        file = os.open(FOLDER / match[1], flags)
    except OSError as error:
        status = 404 if error.errno == errno.ENOENT else 400
        raise RequestError(status, f"cannot open shared memory {key!r}: {error.strerror}") from error
    try:
        _check_object(os.fstat(file), key, end)
    except RequestError:
        os.close(file)
        raise
    return file


def _check_object(found: os.stat_result, key: str, end: int) -> None:
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise RequestError(400, f"{key!r} is no plain shared memory object")
    if found.st_uid != os.geteuid():
        raise RequestError(400, f"shared memory {key!r} belongs to another user than the daemon")
    if found.st_size < end:
        raise RequestError(400, f"shared memory {key!r} has {found.st_size} bytes; 'offset' + 'byte_size' is {end}")
