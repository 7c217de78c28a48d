"""Locks: every wheel that a release may hold for one architecture and one Python, by version and digest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources.abc import Traversable

from edgemask.errors import UserError, unknown
from edgemask.target import targets_folder

BASE = "base"
LOCK = re.compile(r"(?P<arch>[a-z0-9_]+)-cp3(?P<minor>\d+)\.txt")
_LINE = re.compile(
    r"(?P<name>[a-z0-9-]+)==(?P<version>[\w.]+) --hash=sha256:(?P<sha256>[0-9a-f]{64})"
    r"  # (?P<groups>[a-z0-9 ]+)(; glibc (?P<glibc>2\.[0-9]+))?"
)


@dataclass(frozen=True)
class Pin:
    """One wheel. `groups`: `base`, or extras of edgemask-runtime that need it; `glibc`: what its libraries ask for."""

    name: str
    version: str
    sha256: str
    groups: tuple[str, ...]
    glibc: str | None = None

    def __str__(self) -> str:
        needs = f"; glibc {self.glibc}" if self.glibc else ""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}  # {' '.join(self.groups)}{needs}"


def pinned_pythons(arch: str) -> tuple[str, ...]:
    """The Python versions whose wheels are pinned for this architecture, oldest first."""
    found = (LOCK.fullmatch(file.name) for file in _folder().iterdir())
    return tuple(f"3.{minor}" for minor in sorted(int(m["minor"]) for m in found if m and m["arch"] == arch))


def lock_for(arch: str, python: str, wanted: Iterable[str]) -> tuple[Pin, ...]:
    """What the base and these extras need, by name; UserError for a Python or an extra that is not pinned."""
    if python not in (pythons := pinned_pythons(arch)):
        allowed = f"allowed: {', '.join(pythons) or 'none'}; see 'Wheels' in docs/targets.md"
        raise UserError(f"no wheels are pinned for {arch}, CPython {python}", allowed)
    pins = read_lock(_folder() / f"{arch}-cp{python.replace('.', '')}.txt")
    groups = {group for pin in pins for group in pin.groups}
    chosen = {BASE, *wanted}
    if foreign := chosen - groups:
        raise unknown("extra of edgemask-runtime", min(foreign), groups - {BASE})
    return tuple(pin for pin in pins if chosen & set(pin.groups))


def read_lock(file: Traversable) -> tuple[Pin, ...]:
    """Every pin of a lock, in its order."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(_pin(line, f"{file}:{number}") for number, line in enumerate(lines, 1) if line and line[0] != "#")


def _pin(line: str, where: str) -> Pin:
    if not (match := _LINE.fullmatch(line)):
        raise UserError(f"{where}: not NAME==VERSION --hash=sha256:...  # GROUPS", "make the locks anew: make locks")
    return Pin(match["name"], match["version"], match["sha256"], tuple(match["groups"].split()), match["glibc"])


def _folder() -> Traversable:
    return targets_folder() / "wheels"
