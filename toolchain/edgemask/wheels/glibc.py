"""What a wheel's own libraries ask of the C library: its file name may promise more than they keep."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

ELF = b"\x7fELF"
# As it stands in a library's table of strings.
_WANTED = re.compile(rb"\0GLIBC_2\.(\d+)(?:\.\d+)?(?=\0)")


def wanted_glibc(wheel: Path) -> str | None:
    """The oldest glibc ("2.34") that has every symbol which the wheel's libraries name; None where there are none."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".so" in name.rpartition("/")[2]]
        minors = [minor for name in names for minor in _minors(archive.read(name))]
    return f"2.{max(minors)}" if minors else None


def newest(versions: Iterable[str | None]) -> str:
    """The newest of these versions of glibc, 2.17 at least: nothing older runs a Python of ours."""
    return f"2.{max([17, *(int(version.partition('.')[2]) for version in versions if version)])}"


def _minors(content: bytes) -> list[int]:
    return [int(match[1]) for match in _WANTED.finditer(content)] if content.startswith(ELF) else []
