"""What a device knows of itself, as far as a release asks."""

from __future__ import annotations

import os
import platform
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

BYTES_PER_KB, BYTES_PER_MB = 1 << 10, 1 << 20
DEVICE_TREE, MEMORY = "proc/device-tree/compatible", "proc/meminfo"
NARROW = {"aarch64": "armv7l", "x86_64": "i686"}
"""What programs of 32 bits are for under a kernel of 64: Raspberry Pi OS has such a variant."""
# Why these alone: they come with the system's packages and keep the times that those were built at. What a running
# system writes, as timesyncd does, is only as right as its clock.
SYSTEM_FILES = ("usr/lib/os-release", "usr/lib/clock-epoch")


@dataclass(frozen=True)
class Facts:
    """A device, as far as a release asks: `floor` and `newest_s` are what state.json and the system remember.

    `newest_s` is a second since 1970 that has passed for certain; `clock_s` is what the clock says. `boards` are the
    device tree's "compatible" strings; `glibc` is None where there is another C library.
    """

    floor: int
    clock_s: int
    newest_s: int
    arch: str
    boards: tuple[str, ...]
    python: str
    glibc: str | None
    memory_mb: int


def this_device(floor: int, newest_s: int, root: Path = Path("/")) -> Facts:
    """The facts of the device that this runs on; its files are looked for under `root`."""
    return Facts(
        floor=floor,
        clock_s=int(time.time()),
        newest_s=max(newest_s, _system_s(root)),
        arch=_arch(),
        boards=_boards(root),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        glibc=_glibc(),
        memory_mb=_memory_mb(root),
    )


def _system_s(root: Path) -> int:
    found = [path.stat().st_mtime for name in SYSTEM_FILES if (path := root / name).exists()]
    return int(max(found, default=0))


def _arch() -> str:
    machine = platform.machine()
    return NARROW.get(machine, machine) if struct.calcsize("P") == 4 else machine


def _boards(root: Path) -> tuple[str, ...]:
    try:
        names = (root / DEVICE_TREE).read_bytes().split(b"\0")
    except OSError:
        return ()
    return tuple(name.decode("ascii", "replace") for name in names if name)


def _glibc() -> str | None:
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    except (ValueError, OSError):
        return None
    return version if name == "glibc" else None


def _memory_mb(root: Path) -> int:
    for line in (root / MEMORY).read_text().splitlines():
        name, _, size = line.partition(":")
        if name == "MemTotal":
            return int(size.split()[0]) * BYTES_PER_KB // BYTES_PER_MB
    return 0
