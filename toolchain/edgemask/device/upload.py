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
        size, digest = self._offer(parcel)
        is_start = size <= len(parcel.content) and hashlib.sha256(parcel.content[:size]).hexdigest() == digest
        return size if is_start else 0

    def send(self, parcel: Parcel, tell: Tell) -> str:
        """Send what is missing; the path of the whole file there. UserError says what became of it."""
        offset = self.arrived(parcel)
        size = len(parcel.content)
        words = ["receive", parcel.name, str(size), str(offset)]
        with self._ssh.start(self._command(words)) as channel:
            for start in range(offset, size, CHUNK_BYTES):
                tell("send", start, size)
                if not channel.offer(parcel.content[start : start + CHUNK_BYTES]):
                    break
            done = channel.finish()
        found = self._checked(told(done, self._where))
        tell("send", size, size)
        if found["sha256"] != parcel.sha256:
            raise self._damaged(found["bytes"], size)
        return str(found["path"])

    def keep(self, parcels: Sequence[Parcel]) -> None:
        """Remove whatever else was sent at some time."""
        self._checked(told(self._ssh.run(self._command(["keep", *(parcel.name for parcel in parcels)])), self._where))

    @property
    def _where(self) -> str:
        return f"{self._ssh.destination}: sending"

    def _command(self, words: list[str]) -> list[str]:
        return sent("inbox", *words, python=self._python)

    def _offer(self, parcel: Parcel) -> tuple[int, str]:
        found = self._checked(told(self._ssh.run(self._command(["offer", parcel.name])), self._where))
        return int(found["bytes"]), str(found["sha256"])

    def _checked(self, found: dict[str, Any]) -> dict[str, Any]:
        fault, where = found.get("fault"), self._ssh.destination
        if fault == "full":
            hint = "make room on the device (`df -h` shows the disks); what arrived is kept, so then " + AGAIN
            raise UserError(f"{where}: its disk is full: {found['reason']}", hint)
        if fault == "busy":
            raise UserError(f"{where}: somebody else is sending the same release", "wait until it is there")
        if fault:
            raise UserError(f"{where}: cannot take the release in: {found['reason']}", "mend that on the device")
        return found

    def _damaged(self, arrived: int, size: int) -> UserError:
        if arrived < size:
            return UserError(f"{self._ssh.destination}: only {arrived} of {size} bytes arrived", AGAIN)
        return UserError(f"{self._ssh.destination}: what arrived is not what was sent", f"{AGAIN}; is its disk sound?")
