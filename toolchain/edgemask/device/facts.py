"""What a device says of itself, read from the program that is sent there to look."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgemask.device.ssh import NOT_FOUND, Done, Ssh
from edgemask.device.there import sent
from edgemask.errors import Faults, UserError, structure

if TYPE_CHECKING:
    from edgemask.device.home import Home

NARROW = {"aarch64": "armv7l", "x86_64": "i686"}
"""What programs of 32 bits are for under a kernel of 64."""


@dataclass(frozen=True)
class Disk:
    """The file system that a folder is on, as a number, and the bytes free there."""

    device: int
    free: int


@dataclass(frozen=True)
class Facts:
    """A device, as far as a release asks. `others` are further Pythons and their versions; `venv` and
    `packages` are what the one that will be taken has; `busy` who installs now.

    `runs` is whether what is `installed` can install the next, `left` whether anything of an installation is there, and
    `clearable` the bytes of what an install removes before it writes.
    """

    python: str
    others: dict[str, str]
    venv: bool
    bits: int
    machine: str
    glibc: str | None
    boards: tuple[str, ...]
    model: str
    system: str
    memory_mb: int
    root: Disk
    cache: Disk
    time: float
    systemd: bool
    writable: bool
    busy: str | None
    installed: dict[str, Any] | None
    runs: bool
    left: bool
    clearable: int
    packages: dict[str, bool]

    @property
    def arch(self) -> str:
        """What programs there are made for."""
        return NARROW.get(self.machine, self.machine) if self.bits == 32 else self.machine

    def python_for(self, versions: Mapping[str, object]) -> tuple[str, str] | None:
        """The program and the version of a Python that is one of these; the device's own `python3` before others."""
        known = {"python3": self.python, **self.others}
        return next(((program, version) for program, version in known.items() if version in versions), None)


def ask_facts(ssh: Ssh, home: Home, packages: Sequence[str] = (), pythons: Sequence[str] = ()) -> Facts:
    """Ask the device; UserError where it has no Python 3 to answer with."""
    done = ssh.run(sent("facts", home.root, home.card, ",".join(packages), ",".join(pythons), *home.device))
    if done.code == NOT_FOUND:
        hint = "sudo apt-get install python3 python3-venv on the device"
        raise UserError(f"{ssh.destination}: python3 is missing there", hint)
    where = f"{ssh.destination}: what it says of itself"
    faults = Faults(where)
    found: Facts | None = structure(Facts, told(done, where), "$", faults)
    if found is None or faults:
        raise faults.error("this is a fault of Edgemask: please report it with this message")
    return found


def told(done: Done, where: str) -> Any:
    """The JSON that a program on the device printed last, behind what its shell may have said before."""
    values = objects(done.text)
    if done.code or not values:
        said = (done.err or done.text).strip().splitlines()[-1:] or ["nothing"]
        raise UserError(f"{where}: it failed with {done.code} and said: {said[0]}", "try the command again with ssh")
    return values[-1]


def objects(text: str) -> list[Any]:
    """The JSON objects in what a device printed, each on a line; what else begins with `{` is somebody's greeting."""
    found = []
    for line in text.splitlines():
        with suppress(ValueError):
            found += [json.loads(line)] if line.startswith("{") else []
    return found
