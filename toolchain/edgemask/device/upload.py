"""A file onto a device, over what connection there is: what arrived stays there, and only the rest is sent again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemask.device.facts import told
from edgemask.device.ssh import Ssh
from edgemask.device.there import sent
from edgemask.errors import UserError
from edgemask_runtime.files import read_bytes

CHUNK_BYTES = 1 << 18
MAX_BYTES = 1 << 31
AGAIN = "run the same command again"
MOVED = "moved"
"""Somebody else sends the same file, and has come further: what is there is to be asked for again."""
ATTEMPTS = 3

Tell = Callable[[str, int, int], None]
"""Hears of each step: what it is, how much is done, of how much."""


@dataclass(frozen=True)
class Parcel:
    """A file to be sent: what is checked here is what is sent, whatever becomes of the file meanwhile."""

    label: str
    content: bytes
    sha256: str

    @classmethod
    def read(cls, path: Path) -> Parcel:
        """Read the file."""
        return cls.of(path.name, read_bytes(path, limit_bytes=MAX_BYTES))

    @classmethod
    def of(cls, label: str, content: bytes) -> Parcel:
        """The parcel of this content, under the last part of its name here."""
        return cls(re.sub(r"[^A-Za-z0-9._+-]", "_", label), content, hashlib.sha256(content).hexdigest())

    @property
    def name(self) -> str:
        """What it is called there: another content has another name."""
        return f"{self.sha256[:16]}-{self.label}"


class Inbox:
    """Where a device takes files in, with the Python there of this name."""

    def __init__(self, ssh: Ssh, python: str = "python3") -> None:
        self._ssh, self._python = ssh, python

    def arrived(self, parcel: Parcel) -> int:
        """How many bytes of it are there already, and are right."""
        return self._begin(parcel)[1]

    def send(self, parcel: Parcel, tell: Tell) -> str:
        """Send what is missing; the path of the whole file there. UserError says what became of it."""
        size = len(parcel.content)
        for _ in range(ATTEMPTS):
            found = self._sent(parcel, tell)
            if found.get("fault") != MOVED:
                break
        self._checked(found)
        tell("send", size, size)
        if found["sha256"] != parcel.sha256:
            raise self._damaged(found["bytes"], size)
        return str(found["path"])

    def _sent(self, parcel: Parcel, tell: Tell) -> dict[str, Any]:
        """Send what is missing; what the device told of it."""
        offered, offset = self._begin(parcel)
        size = len(parcel.content)
        words = ["receive", parcel.name, str(size), str(offset), str(offered)]
        with self._ssh.start(self._command(words)) as channel:
            for start in range(offset, size, CHUNK_BYTES):
                tell("send", start, size)
                if not channel.offer(parcel.content[start : start + CHUNK_BYTES]):
                    break
            done = channel.finish()
        found: dict[str, Any] = told(done, self._where)
        return found

    def keep(self, parcels: Sequence[Parcel]) -> None:
        """Remove whatever else was sent at some time."""
        self._checked(told(self._ssh.run(self._command(["keep", *(parcel.name for parcel in parcels)])), self._where))

    @property
    def _where(self) -> str:
        return f"{self._ssh.destination}: sending"

    def _command(self, words: list[str]) -> list[str]:
        return sent("inbox", *words, python=self._python)

    def _begin(self, parcel: Parcel) -> tuple[int, int]:
        """How many bytes of this name are there, and how many of them are the parcel's: all of them or none."""
        found = self._checked(told(self._ssh.run(self._command(["offer", parcel.name])), self._where))
        size = int(found["bytes"])
        start = parcel.content[:size]
        is_start = size == len(start) and hashlib.sha256(start).hexdigest() == found["sha256"]
        return size, size if is_start else 0

    def _checked(self, found: dict[str, Any]) -> dict[str, Any]:
        fault, where = found.get("fault"), self._ssh.destination
        if fault == "full":
            hint = "make room on the device (`df -h` shows the disks); what arrived is kept, so then " + AGAIN
            raise UserError(f"{where}: its disk is full: {found['reason']}", hint)
        if fault in ("busy", MOVED):
            raise UserError(f"{where}: somebody else is sending the same release", "wait until it is there")
        if fault:
            raise UserError(f"{where}: cannot take the release in: {found['reason']}", "mend that on the device")
        return found

    def _damaged(self, arrived: int, size: int) -> UserError:
        if arrived < size:
            return UserError(f"{self._ssh.destination}: only {arrived} of {size} bytes arrived", AGAIN)
        return UserError(f"{self._ssh.destination}: what arrived is not what was sent", f"{AGAIN}; is its disk sound?")
